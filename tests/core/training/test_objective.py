"""What is optimised does not depend on how it is computed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab import Lab, pair_rows, write_rows
from nashtune.interfaces import LossOutput, TokenBatch
from nashtune.training.checkpoint import newest_checkpoint, read_checkpoint
from nashtune.training.objective import Objective


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(newest_checkpoint(run))["state_dict"])


def test_losses_rescaled_by_gradient_accumulation(lab: Lab) -> None:
    """The peers' bug: 14 pairs in micro-batches of 8, of 4 and of 2 with accumulation are the same optimiser steps."""
    split = ["--trainer.max_epochs", "1", "--trainer.gradient_clip_val", "1.0"]
    one = lab.fit(*split, "--data.batch_size", "8", run="one")
    two = lab.fit(*split, "--data.batch_size", "4", "--trainer.accumulate_grad_batches", "2", run="two")
    four = lab.fit(*split, "--data.batch_size", "2", "--trainer.accumulate_grad_batches", "4", run="four")
    for other in (two, four):
        for name, value in weights(one).items():
            torch.testing.assert_close(value, weights(other)[name], rtol=2e-4, atol=2e-6)
        ours, theirs = lab.metrics(one).series["train/loss"], lab.metrics(other).series["train/loss"]
        assert [v for _, v in ours] == pytest.approx([v for _, v in theirs], rel=1e-5)


def test_the_first_step_has_loss_log_2_and_the_loss_falls(lab: Lab) -> None:
    losses = [v for _, v in lab.metrics(lab.fit("--trainer.max_epochs", "4")).series["train/loss"]]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert sum(losses[-4:]) < sum(losses[:4])


@pytest.mark.parametrize("spec", ["cdpo", "ipo", "slic_hinge", "simpo", "orpo", "kto", "epsilon_dpo"])
def test_every_method_trains_and_its_held_out_margin_grows(lab: Lab, spec: str) -> None:
    run = lab.fit("--trainer.max_epochs", "4", spec=spec)
    report = json.loads((run / "report.json").read_text())
    assert report["steps"] == (28 if spec == "kto" else 16)  # 14 pairs are 28 examples
    per_token = {"ipo": "τ · nats per token", "simpo": "β · nats per token", "orpo": "λ · nats per token"}
    assert report["units"] == {"reward": per_token.get(spec, "β · nats")}
    assert lab.metrics(run).series["val/margin"][-1][1] > 0  # 0 at the start, where policy and reference are the same


def test_engines_train_alike(lab: Lab) -> None:
    dense, tiled = (
        [v for _, v in lab.metrics(lab.fit("--engine", name, run=name)).series["train/loss"]]
        for name in ("dense", "tiled")
    )
    assert dense == pytest.approx(tiled, rel=1e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("reference", ["base", "cached"])
def test_the_reference_is_the_starting_policy_at_every_precision(lab: Lab, reference: str, precision: str) -> None:
    options = ["--trainer.precision", precision] if precision != "32-true" else []
    run = lab.fit("--spec.references.ref", reference, "--trainer.max_steps", "1", *options)
    assert lab.metrics(run).series["train/margin"][0][1] == 0.0


def test_the_learning_rate_follows_the_shorter_limit(lab: Lab) -> None:
    run = lab.fit("--trainer.max_steps", "1000", "--spec.optimizer.decay", "linear", "--spec.optimizer.warmup", "0")
    rates = [v for _, v in lab.metrics(run).series["train/lr"]]
    assert rates == pytest.approx([1e-2 * (1 - step / 8) for step in range(8)])


def test_held_out_metrics_belong_to_the_last_step(lab: Lab) -> None:
    series = lab.metrics(lab.fit("--trainer.max_steps", "6")).series
    assert [step for step, _ in series["val/loss"]] == [4, 6]
    assert [step for step, _ in series["train/loss"]] == [1, 2, 3, 4, 5, 6]


def test_epsilon_dpo_moves_beta_and_dpo_does_not(lab: Lab) -> None:
    moved = lab.metrics(lab.fit(spec="epsilon_dpo", run="epsilon")).series["train/beta"]
    fixed = lab.metrics(lab.fit(spec="dpo", run="fixed")).series["train/beta"]
    assert len({v for _, v in fixed}) == 1
    assert len({v for _, v in moved}) > 1


@pytest.mark.parametrize("spec", ["dpo", "epsilon_dpo"])
def test_nan_loss_stops_the_run_and_leaves_no_broken_checkpoint(
    lab: Lab, refused: Callable[..., str], spec: str
) -> None:
    """A learning rate that throws the weights to infinity: rmsprop and adamw meet it at different places."""
    message = refused(
        *["fit", "--spec", spec, "--config", str(lab.run_file), "--run_dir", "run", "--spec.optimizer.lr", "1e30"],
        *["--spec.optimizer.warmup", "0", "--save_every", "1"],
    )
    assert "not finite" in message and "--spec.optimizer.lr" in message
    for checkpoint in Path("run").glob("checkpoints/*.ckpt"):
        assert all(bool(torch.isfinite(w).all()) for w in read_checkpoint(checkpoint)["state_dict"].values())


def test_a_nan_in_the_loss_names_the_rows(
    lab: Lab, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, seen = Objective.evaluate, []

    def broken(self: Objective, batch: TokenBatch, **options: bool) -> LossOutput:
        output = evaluate(self, batch, **options)
        seen.append(int(batch.rows[1]))
        factor = torch.ones_like(output.values)
        factor[1] = float("nan") if len(seen) == 3 else 1.0
        return dataclasses.replace(output, values=output.values * factor)

    monkeypatch.setattr(Objective, "evaluate", broken)
    message = refused("fit", "--spec", "dpo", "--config", str(lab.run_file), "--run_dir", "run")
    assert "the loss is not finite on 1 of 4 rows" in message and f"train.jsonl:{seen[2] + 1}." in message


def test_unused_rows_and_steps_are_counted(lab: Lab) -> None:
    write_rows(lab.folder / "train.jsonl", pair_rows(9))
    report = json.loads((lab.fit("--trainer.max_epochs", "3") / "report.json").read_text())
    assert report["steps"] == 9
