"""Runs of several ranks whose weights are cut up, and how far they are from others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lab import Lab
from nashtune.cli.main import main
from nashtune.training.checkpoint import newest_checkpoint, read_checkpoint
from ranks import PATIENT

FSDP2 = (
    *("--trainer.strategy", "nashtune.sharding.strategy.FSDP2Strategy", "--trainer.strategy.timeout", PATIENT),
    *("--trainer.devices", "2"),
)
PIECES = (*FSDP2, "--trainer.strategy.checkpoints", "sharded")
COMMON = (
    *("--trainer.max_steps", "3", "--spec.optimizer.warmup", "0", "--trainer.gradient_clip_val", "1.0"),
    *("--data.batch_tokens", "60", "--trainer.log_every_n_steps", "1", "--spec.optimizer.lr", "1e-3"),
)
ONE = ("--data.batch_size", "1", "--trainer.accumulate_grad_batches", "4")
TWO = ("--data.batch_size", "1", "--trainer.accumulate_grad_batches", "2")


def fit_each(rank: int, commands: list[list[str]]) -> None:
    for command in commands:
        assert main(command) == 0, command


def command(lab: Lab, run: str, spec: str | None, *options: str) -> list[str]:
    named = ["--spec", spec] if spec else []
    return ["fit", *named, "--config", str(lab.run_file), "--run_dir", run, *COMMON, *options]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(newest_checkpoint(run))["state_dict"])


def distance(run: Path, other: Path) -> float:
    """Between the weights of two runs, relative to their size."""
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    gap = sum(float((value - theirs[name]).square().sum()) for name, value in ours.items())
    size = sum(float(value.square().sum()) for value in ours.values())
    return float((gap / size) ** 0.5)


def same_numbers(lab: Lab, run: Path, other: Path) -> None:
    ours, theirs = lab.metrics(run).series, lab.metrics(other).series
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert [v for _, v in values] == pytest.approx([v for _, v in theirs[name]], rel=1e-5, abs=1e-6), name
