"""How many passes a batch takes changes memory, and nothing of what is optimised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab import Lab
from nashtune.cli.main import main
from nashtune.training.checkpoint import newest_checkpoint, read_checkpoint
from ranks import free_port

OPTIONS = ["--trainer.max_epochs", "1", "--trainer.gradient_clip_val", "1.0", "--data.batch_size", "4"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(newest_checkpoint(run))["state_dict"])


@pytest.mark.parametrize("engine", ["tiled", "shared"])
def test_one_pair_at_a_time_is_the_same_optimiser_step(lab: Lab, engine: str) -> None:
    runs = [
        lab.fit(*OPTIONS, "--engine", engine, "--data.batch_tokens", str(budget), run=f"{engine}-{budget}")
        for budget in (100_000, 1)
    ]
    whole, apart = map(weights, runs)
    for name, value in whole.items():
        torch.testing.assert_close(value, apart[name], rtol=2e-4, atol=2e-6)
    ours, theirs = (lab.metrics(run).series for run in runs)
    for name in ("train/loss", "train/margin", "val/loss", "val/accuracy"):
        assert [v for _, v in ours[name]] == pytest.approx([v for _, v in theirs[name]], rel=1e-5, abs=1e-7)


def test_passes_and_accumulation_together(lab: Lab) -> None:
    """14 pairs: three windows of 6, 6 and 2 pairs, whatever the micro-batches and their passes are."""
    split = ["--trainer.max_epochs", "1", "--data.batch_tokens", "60"]
    three = lab.fit(*split, "--data.batch_size", "2", "--trainer.accumulate_grad_batches", "3", run="three")
    one = lab.fit(*split, "--data.batch_size", "6", run="one")
    for name, value in weights(three).items():
        torch.testing.assert_close(value, weights(one)[name], rtol=2e-4, atol=2e-6)


def test_two_processes_with_unequal_passes_are_the_same_optimiser_steps(lab: Lab) -> None:
    """The last step has 2 pairs for two processes, and passes are split by each process's own lengths."""
    command = [sys.executable, "-m", "nashtune", "fit", "--spec", "epsilon_dpo", "--config", str(lab.run_file)]
    settings = ["--trainer.max_epochs", "1", "--data.batch_tokens", "60", "--spec.optimizer.warmup", "0"]
    two = [*command, *settings, "--run_dir", "two", "--data.batch_size", "2", "--trainer.devices", "2"]
    environ = {**os.environ, "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*two, "--trainer.strategy", "ddp"], capture_output=True, text=True, cwd=lab.folder, env=environ
    )
    assert done.returncode == 0, done.stderr
    one = lab.fit(*settings, "--data.batch_size", "4", spec="epsilon_dpo", run="one")
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(lab.folder / "two")[name], rtol=2e-4, atol=1e-5)
    ours, theirs = (lab.metrics(run).series for run in (one, lab.folder / "two"))
    for name in ("train/loss", "train/margin", "train/beta"):
        assert [v for _, v in ours[name]] == pytest.approx([v for _, v in theirs[name]], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("spec", ["kto"])
def test_what_compares_rows_is_one_pass(lab: Lab, spec: str, refused: Callable[..., str]) -> None:
    said = refused("fit", "--spec", spec, "--config", str(lab.run_file), "--data.batch_tokens", "60")
    assert "data.batch_tokens: 60 would split a micro-batch into several passes" in said


def test_predictions_come_in_the_order_of_the_rows(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(newest_checkpoint(lab.fit("--trainer.max_steps", "2")))
    capsys.readouterr()
    command = ["predict", "--ckpt_path", checkpoint, "--data.test", "validation.jsonl"]
    assert main([*command, "--data.batch_tokens", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["row"] for line in lines] == list(range(6))
