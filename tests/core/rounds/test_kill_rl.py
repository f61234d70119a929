"""Reinforcement learning that is killed at any moment and taken up again ends as a run that was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from killing import killed_run
from lab import Lab

MOMENTS = {
    "while sampling": ("nashtune.rounds.collect:write_completions", 2, False),
    "while scoring": ("nashtune.rounds.judge:write_scores", 2, False),
    "while measuring": ("nashtune.journal.store:Journal.write_tensors", 2, False),
    "after measuring, before the first step": ("nashtune.journal.store:Journal.write_tensors", 2, True),
    "between two steps of an update": ("nashtune.training.module:AlignmentModule.training_step", 11, False),
    "while a checkpoint is written": ("nashtune.training.checkpoint:AtomicCheckpointIO.save_checkpoint", 2, False),
}

ARGUMENTS = (
    *("--spec.schedule.steps", "3", "--data.prompts_per_round", "2", "--spec.sampler.completions", "4"),
    *("--data.batch_size", "2", "--trainer.accumulate_grad_batches", "2", "--trainer.max_epochs", "2"),
    *("--save_every", "3", "--spec.kl", "adaptive", "--spec.kl.beta", "0.1", "--spec.kl.target", "0.001"),
    *("--spec.kl.horizon", "20"),
)

UNDISTURBED: list[tuple[dict[str, object], object]] = []


def outcome(run: Path) -> dict[str, object]:
    """Every journal file, the weights with the critic, the optimiser, and the controller's state."""
    checkpoint = torch.load(next((run / "checkpoints").glob("step=*.ckpt")), weights_only=True)
    report = json.loads((run / "report.json").read_text())
    return {
        "journal": {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.glob("journal/*/*"))},
        "weights": {name: value.tolist() for name, value in checkpoint["state_dict"].items()},
        "optimizer": str(checkpoint["optimizer_states"]),
        "kl": checkpoint["kl"],
        "report": {name: report[name] for name in ("steps", "rounds", "win_rates")},
    }


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_equals_uninterrupted(game: Lab, moment: str) -> None:
    if not UNDISTURBED:
        whole = game.fit(*ARGUMENTS, spec="ppo", run="whole")
        UNDISTURBED.append((outcome(whole), game.metrics(whole)))
    expected, metrics = UNDISTURBED[0]
    target, call, after = MOMENTS[moment]
    command = ["fit", "--spec", "ppo", "--config", str(game.run_file), "--run_dir", str(game.folder / "run")]
    assert killed_run([*command, *ARGUMENTS], str(game.folder), target, call, after=after) == -9
    run = game.fit("--ckpt_path", "last", *ARGUMENTS, spec=None)
    found = outcome(run)
    for name in expected:
        assert found[name] == expected[name], name
    assert game.metrics(run) == metrics
