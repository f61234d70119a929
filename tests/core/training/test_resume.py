"""Interrupted anywhere and resumed equals uninterrupted, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from faults import LOAD, STEP, Fault, faulty, said
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


def kill_at(lab: Lab, batch: int, *arguments: str, run: str, by: str = "kill") -> Path:
    """Train with a checkpoint at every step, in a process that gets a signal before a micro-batch of its own."""
    folder = lab.folder / run
    command = ["fit", "--config", str(lab.run_file), "--run_dir", str(folder), "--save_every", "1", *arguments]
    (code,) = faulty(command, lab.folder, Fault(by, STEP, batch + 1))
    assert code == {"kill": -9, "term": 143, "int": 130}[by], said(lab.folder)
    if by != "kill":
        assert "the newest checkpoint is step=" in said(lab.folder) and "--ckpt_path last" in said(lab.folder)
    return folder


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
    kill_at(lab, 1, *options, "--ckpt_path", "last", run="parts")
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


@pytest.mark.parametrize("by", ["term", "int"])
def test_stopped_by_a_signal_says_how_to_go_on_and_does(lab: Lab, by: str) -> None:
    whole = lab.fit("--save_every", "1", run="whole")
    parts = kill_at(lab, 3, "--spec", "dpo", run="parts", by=by)
    lab.fit("--ckpt_path", "last", "--save_every", "1", spec=None, run="parts")
    assert_equal_runs(whole, parts, lab)


def test_stopped_before_anything_was_trained_names_no_folder_that_is_gone(lab: Lab) -> None:
    command = ["fit", "--spec", "dpo", "--config", str(lab.run_file), "--run_dir", str(lab.folder / "run")]
    assert faulty(command, lab.folder, Fault("term", LOAD)) == [143], said(lab.folder)
    assert not (lab.folder / "run").exists()
    assert said(lab.folder).endswith(f"nothing is left of it in {lab.folder / 'run'}; give the same command again")


def test_killed_in_the_middle_of_a_logging_interval(lab: Lab) -> None:
    """A row is the mean over its interval, of which a part was before the kill."""
    options = ["--trainer.log_every_n_steps", "4", "--data.batch_tokens", "150", "--spec", "epsilon_dpo"]
    whole = lab.fit("--save_every", "1", *options, spec=None, run="whole")
    assert [step for step, _ in lab.metrics(whole).series["train/loss"]] == [4, 8]
    parts = kill_at(lab, 6, *options, run="parts")
    lab.fit("--ckpt_path", "last", "--save_every", "1", *options, spec=None, run="parts")
    assert_equal_runs(whole, parts, lab)


def test_a_row_is_the_mean_over_its_interval(lab: Lab) -> None:
    """Its pairs, and not its steps, count alike: of 14 pairs in batches of 4, the last step of an epoch has 2."""
    each = lab.metrics(lab.fit(run="each")).series
    fourth = lab.metrics(lab.fit("--trainer.log_every_n_steps", "4", run="fourth")).series
    for name in ("train/loss", "train/accuracy", "train/margin"):
        of_steps = [value for _, value in each[name]]
        expected = [sum(a * b for a, b in zip(of_steps[i : i + 4], (4, 4, 4, 2), strict=True)) / 14 for i in (0, 4)]
        assert [value for _, value in fourth[name]] == pytest.approx(expected, rel=1e-9)
