"""What is optimised does not depend on how it is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab import Lab, pair_rows, write_rows
from nashtune.training.checkpoint import newest_checkpoint, read_checkpoint


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
    first = lab.metrics(run).series["val/margin"]
    assert first[-1][1] > first[0][1] or first[-1][1] > 0.1


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_engines_train_alike(lab: Lab, engine: str) -> None:
    run = lab.fit("--engine", engine, "--trainer.max_epochs", "1", run=engine)
    losses = [v for _, v in lab.metrics(run).series["train/loss"]]
    again = [v for _, v in lab.metrics(lab.fit("--trainer.max_epochs", "1", run="default")).series["train/loss"]]
    assert losses == pytest.approx(again, rel=1e-4)


def test_epsilon_dpo_moves_beta_and_dpo_does_not(lab: Lab) -> None:
    moved = lab.metrics(lab.fit(spec="epsilon_dpo", run="epsilon")).series["train/beta"]
    fixed = lab.metrics(lab.fit(spec="dpo", run="fixed")).series["train/beta"]
    assert len({v for _, v in fixed}) == 1
    assert len({v for _, v in moved}) > 1


def test_nan_loss_stops_the_run_and_names_the_rows(lab: Lab, refused: Callable[..., str]) -> None:
    message = refused(
        *["fit", "--spec", "dpo", "--config", str(lab.run_file), "--run_dir", "run", "--spec.optimizer.lr", "1e38"],
        *["--spec.optimizer.warmup", "0"],
    )
    assert "the loss is not finite" in message and "train.jsonl:" in message and "--spec.optimizer.lr" in message


def test_unused_rows_and_steps_are_counted(lab: Lab) -> None:
    write_rows(lab.folder / "train.jsonl", pair_rows(9))
    report = json.loads((lab.fit("--trainer.max_epochs", "3") / "report.json").read_text())
    assert report["steps"] == 9
