"""Cached log-probs from run to run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lab import Lab
from nashtune.training.checkpoint import newest_checkpoint


def arguments(lab: Lab, *more: str) -> list[str]:
    return [
        *("--spec.references.ref", "cached", "--spec.references.ref.folder", str(lab.folder / "cache")),
        *("--trainer.max_epochs", "1", *more),
    ]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(newest_checkpoint(run), weights_only=True)["state_dict"]


def cache_files(lab: Lab) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (lab.folder / "cache").glob("*.safetensors")}


def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences each later call of `score_new` runs the model on."""
    from nashtune.references import cached, verification

    counts: list[int] = []
    original = cached.score_new

    def count(*args: object, **kwargs: object) -> object:
        found = original(*args, **kwargs)  # type: ignore[arg-type]
        counts.append(len(found))
        return found

    for module in (cached, verification):
        monkeypatch.setattr(module, "score_new", count)
    return counts


def test_runs_of_a_sweep_share_one_file_for_each_split(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = scored(monkeypatch)
    lab.fit(*arguments(lab), run="first")
    files = cache_files(lab)
    assert len(files) == 2 and counts == [28, 12]
    for run, more in (("rate", ["--spec.optimizer.lr", "1e-3"]), ("beta", ["--spec.kl.beta", "0.3"])):
        counts.clear()
        lab.fit(*arguments(lab, *more), run=run)
        assert counts == [8, 8]  # a few of each file, to check it
    assert cache_files(lab) == files
    counts.clear()
    lab.fit(*arguments(lab, "--trainer.precision", "bf16-mixed"), run="precision")
    assert counts == [28, 8] and len(cache_files(lab)) == 3, "held-out rows are run without autocast in both"


def test_cached_and_live_reference_train_alike(lab: Lab) -> None:
    live = lab.metrics(lab.fit("--trainer.max_epochs", "1", run="live"))
    cached = lab.metrics(lab.fit(*arguments(lab), run="cached"))
    assert live.series.keys() >= cached.series.keys()
    for one, other in zip(live.series["train/loss"], cached.series["train/loss"], strict=True):
        assert other == pytest.approx(one, rel=1e-5)


def test_a_resumed_run_reads_the_file_of_the_first(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = weights(lab.fit(*arguments(lab), run="whole"))
    lab.fit(*arguments(lab, "--trainer.max_steps", "2"), run="parts")
    counts = scored(monkeypatch)
    caplog.clear()
    resumed = lab.fit(*arguments(lab, "--trainer.max_steps", "-1", "--ckpt_path", "last"), run="parts")
    assert counts == [] and "is not checked against the model: the weights of a checkpoint" in caplog.text
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in whole.items())
