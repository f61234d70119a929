"""Interrupted anywhere and resumed equals uninterrupted, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab import Lab
from nashtune.training.checkpoint import newest_checkpoint


def content(run: Path) -> dict[str, object]:
    return torch.load(newest_checkpoint(run), weights_only=True)


def same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict) and first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))  # type: ignore[arg-type]
    return first == second


def assert_equal_runs(whole: Path, parts: Path, lab: Lab) -> None:
    ours, theirs = content(whole), content(parts)
    for section in ("state_dict", "optimizer_states", "lr_schedulers", "kl", "global_step", "epoch"):
        assert same(ours[section], theirs[section]), section
    assert same(ours["nashtune"]["random"], theirs["nashtune"]["random"])
    assert lab.metrics(whole).series == lab.metrics(parts).series


KILLER = """
import os, signal, sys
from lightning.pytorch import Callback
import nashtune.training.fit as fit
class Kill(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed == int(os.environ["KILL_AT"]):
            os.kill(os.getpid(), int(os.environ["KILL_WITH"]))
original = fit.make_trainer
fit.make_trainer = lambda cli, folder, callbacks, loggers: original(cli, folder, [*callbacks, Kill()], loggers)
from nashtune.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def kill_at(lab: Lab, batch: int, *arguments: str, run: str, by: signal.Signals = signal.SIGKILL) -> Path:
    command = [
        "fit",
        "--config",
        str(lab.run_file),
        "--run_dir",
        str(lab.folder / run),
        "--save_every",
        "1",
        *arguments,
    ]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, *command],
        env={**os.environ, "KILL_AT": str(batch), "KILL_WITH": str(int(by))},
        capture_output=True,
        text=True,
    )
    if by == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        assert done.returncode == 128 + by, done.stderr
        assert "the newest checkpoint is step=" in done.stderr and "--ckpt_path last" in done.stderr
    return lab.folder / run


@pytest.mark.parametrize(
    ("batch", "accumulate", "spec"),
    [(3, 1, "epsilon_dpo"), (6, 1, "dpo"), (5, 2, "epsilon_dpo")],
    ids=["mid-epoch", "second epoch", "mid accumulation window"],
)
def test_killed_and_resumed_equals_uninterrupted(lab: Lab, batch: int, accumulate: int, spec: str) -> None:
    options = ["--trainer.accumulate_grad_batches", str(accumulate), "--spec", spec]
    whole = lab.fit("--save_every", "1", *options, spec=None, run="whole")
    parts = kill_at(lab, batch, *options, run="parts")
    lab.fit("--ckpt_path", "last", *options, "--save_every", "1", spec=None, run="parts")
    assert_equal_runs(whole, parts, lab)


def test_dropout_and_a_lora_checkpoint_resume_exactly(lab: Lab) -> None:
    options = ["--policy.lora.r", "4", "--policy.lora.alpha", "8", "--policy.lora.dropout", "0.3"]
    whole = lab.fit("--save_every", "1", *options, run="whole")
    parts = kill_at(lab, 5, "--spec", "dpo", *options, run="parts")
    lab.fit("--ckpt_path", "last", spec=None, run="parts")
    assert_equal_runs(whole, parts, lab)
    assert all("lora" in name for name in content(whole)["state_dict"])


def test_a_resume_needs_neither_spec_nor_run_file(lab: Lab) -> None:
    from nashtune.cli.main import main

    whole = lab.fit("--save_every", "1", run="whole")
    parts = kill_at(lab, 3, "--spec", "dpo", run="parts")
    assert main(["fit", "--ckpt_path", str(newest_checkpoint(parts))]) == 0
    assert_equal_runs(whole, parts, lab)
    assert (parts / "config.yaml").exists() and (parts / "config.1.yaml").exists()


def test_killed_twice_with_accumulation(lab: Lab) -> None:
    """The trap: a resumed Lightning run saves in the middle of a window, over the only good checkpoint."""
    options = ["--trainer.accumulate_grad_batches", "2", "--spec", "dpo"]
    whole = lab.fit("--save_every", "1", *options, spec=None, run="whole")
    kill_at(lab, 5, *options, run="parts")
    kill_at(lab, 5, *options, "--ckpt_path", "last", run="parts")
    lab.fit("--ckpt_path", "last", "--save_every", "1", *options, spec=None, run="parts")
    assert_equal_runs(whole, lab.folder / "parts", lab)


def test_stopped_by_max_steps_in_the_middle_of_an_epoch_and_continued(lab: Lab) -> None:
    """`save_every` divides nothing here: the last checkpoint must still know that the epoch goes on."""
    whole = lab.fit(run="whole")
    parts = lab.fit("--trainer.max_steps", "2", run="parts")
    exported = parts / "export" / "model.safetensors"
    first = exported.read_bytes()
    lab.fit("--ckpt_path", "last", "--trainer.max_steps", "-1", spec=None, run="parts")
    ours, theirs = content(whole), content(parts)
    assert ours["global_step"] == theirs["global_step"] == 8
    assert same(ours["state_dict"], theirs["state_dict"])
    assert exported.read_bytes() != first
    assert exported.read_bytes() == (whole / "export" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("batch", [4, 5])
def test_killed_around_a_validation_in_the_middle_of_an_epoch(lab: Lab, batch: int) -> None:
    options = ["--trainer.val_check_interval", "2", "--spec", "dpo"]
    whole = lab.fit("--save_every", "1", *options, spec=None, run="whole")
    parts = kill_at(lab, batch, *options, run="parts")
    lab.fit("--ckpt_path", "last", "--save_every", "1", *options, spec=None, run="parts")
    assert_equal_runs(whole, parts, lab)


def test_resuming_a_finished_run_changes_nothing(lab: Lab) -> None:
    run = lab.fit()
    before = {
        p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.suffix in (".json", ".ckpt", ".safetensors")
    }
    lab.fit("--ckpt_path", "last", spec=None)
    assert {p: p.read_bytes() for p in before} == before


def test_a_resume_with_another_model_is_refused(lab: Lab, refused: Callable[..., str]) -> None:
    run = lab.fit("--trainer.max_steps", "2")
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--policy.path", "elsewhere")
    assert "policy.path" in message and "the checkpoint was trained with" in message


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_says_how_to_go_on_and_does(lab: Lab, by: signal.Signals) -> None:
    whole = lab.fit("--save_every", "1", run="whole")
    parts = kill_at(lab, 3, "--spec", "dpo", run="parts", by=by)
    lab.fit("--ckpt_path", "last", "--save_every", "1", spec=None, run="parts")
    assert_equal_runs(whole, parts, lab)
