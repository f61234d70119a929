"""A loss that keeps running numbers is told of each step of a game or of reinforcement learning, also over a resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lab import Lab
from nashtune.training.checkpoint import newest_checkpoint, read_checkpoint
from nashtune.trust import granted

LOSSES = '''
"""Losses whose values and advantages move with what happened at earlier steps."""
from dataclasses import replace

from nashtune.interfaces import Advantages
from nashtune_plugins.dpo import DPOLoss
from nashtune_plugins.rloo import RLOOLoss


class Running:
    steps = 0
    mean = 0.0

    def __call__(self, batch, step):
        output = super().__call__(batch, step)
        return replace(output, values=output.values * (1.0 + 0.5 * self.mean))

    def observe(self, means):
        self.steps += 1
        self.mean = 0.5 * self.mean + abs(float(means["loss"]))

    def state_dict(self):
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state):
        self.steps, self.mean = int(state["steps"]), float(state["mean"])


class RunningRLOO(Running, RLOOLoss):
    """The baseline moves, too."""

    def advantages(self, batch, step):
        return Advantages(advantage=super().advantages(batch, step).advantage - self.mean)


class RunningDPO(Running, DPOLoss):
    """Of pairs."""
'''
SIZES = ("--data.batch_size", "2", "--trainer.accumulate_grad_batches", "2", "--trainer.max_epochs", "2")
SPECS = {
    "rloo": ("RunningRLOO", "--spec.schedule.steps", "3", "--data.prompts_per_round", "2"),
    "online_dpo": ("RunningDPO", "--spec.schedule.rounds", "2"),
}


@pytest.fixture
def losses(game: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    (game.folder / "running_losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(str(game.folder))
    with granted(["running_losses"]):
        yield game


def newest(run: Path) -> dict[str, object]:
    content = read_checkpoint(newest_checkpoint(run))
    return {name: content[name] for name in ("state_dict", "loss")}


@pytest.mark.parametrize("spec", SPECS)
def test_stopped_within_an_update_and_resumed_equals_undisturbed(losses: Lab, spec: str) -> None:
    """Advantages are those of the state from before the update, which has moved when the run goes on."""
    name, *sizes = SPECS[spec]
    options = (*SIZES, *sizes, "--spec.loss", f"running_losses.{name}", "--save_every", "1000")
    whole = losses.fit(*options, spec=spec, run="whole")
    steps = newest(whole)["loss"]["steps"]  # type: ignore[index]
    assert steps >= 4  # at least two of each update
    parts = losses.fit(*options, "--trainer.max_steps", str(steps // 2 + 1), spec=spec, run="parts")
    assert newest(parts)["loss"]["steps"] == steps // 2 + 1  # type: ignore[index]
    losses.fit(*options, "--ckpt_path", "last", "--trainer.max_steps", "-1", spec=spec, run="parts")
    ours, theirs = newest(whole), newest(parts)
    assert ours["loss"] == theirs["loss"]
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()  # type: ignore[attr-defined]
    for key, weight in ours["state_dict"].items():  # type: ignore[attr-defined]
        assert torch.equal(weight, theirs["state_dict"][key]), key  # type: ignore[index]
    assert losses.metrics(whole).series["train/loss"] == losses.metrics(parts).series["train/loss"]
