"""A run that was stopped and went on is reported as one: tokens of the result, and all of the time that was spent."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from faults import STEP, Fault, faulty, said
from lab import Lab
from nashtune.training import attempts as module
from nashtune.training.attempts import Attempts
from nashtune.training.throughput import Throughput


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is written after each step."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_ROWS", 0.0)


def begin(folder: Path, number: int, checkpoint: dict[str, Any], step: int = 0, **more: bool) -> tuple[Attempts, Any]:
    """An attempt that goes on from a checkpoint at a step."""
    attempts, trainer = Attempts(Throughput(), folder, number, **more), SimpleNamespace(global_step=step)
    trainer.is_global_zero = True
    name = f"environment.{number}.json" if number else "environment.json"
    (folder / name).write_text(json.dumps({"began": f"day {number}", "command": ["nashtune", str(number)]}))
    attempts.on_load_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    attempts.on_train_start(trainer, None)  # type: ignore[arg-type]
    return attempts, trainer


def train(one: tuple[Attempts, Any], steps: int) -> dict[str, Any]:
    """Steps of 2 s, 10 tokens in 8 positions, 1 of them padding; the checkpoint after them."""
    attempts, trainer = one
    for _ in range(steps):
        counted = attempts._throughput
        counted.real_tokens, counted.positions = counted.real_tokens + 10, counted.positions + 8
        counted.padding, counted.seconds = counted.padding + 1, counted.seconds + 2.0
        trainer.global_step += 1
        attempts.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
    saved: dict[str, Any] = {}
    attempts.on_save_checkpoint(trainer, None, saved)  # type: ignore[arg-type]
    return json.loads(json.dumps(saved))  # plain values, so that a checkpoint loads without running code


def test_what_was_trained_after_the_checkpoint_is_time_spent_and_no_result(tmp_path: Path) -> None:
    first = begin(tmp_path, 0, {})
    saved = train(first, 3)
    train(first, 2)  # lost: killed before the next checkpoint
    second = begin(tmp_path, 1, saved, step=3)
    saved = train(second, 1)
    third = begin(tmp_path, 2, saved, step=4)
    train(third, 4)
    figures, rows = third[0].report()
    assert (figures["tokens"], figures["training_seconds"], figures["lost_seconds"]) == (80, 20.0, 4.0)
    assert figures["tokens_per_second"] == 80 / 16 and figures["positions_per_second"] == 64 / 16
    assert figures["padding_share"] == 1 / 8
    names = ("attempt", "command", "steps", "tokens", "training_seconds", "lost_steps", "lost_seconds")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (0, ["nashtune", "0"], 3, 30, 10.0, 2, 4.0),
        (1, ["nashtune", "1"], 1, 10, 2.0, 0, 0.0),
        (2, ["nashtune", "2"], 4, 40, 8.0, 0, 0.0),
    ]
    assert [row["began"] for row in rows] == ["day 0", "day 1", "day 2"]


def test_the_peak_is_that_of_any_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "peak_memory_gib", lambda: 1000.0)
    saved = train(begin(tmp_path, 0, {}), 1)
    monkeypatch.setattr(module, "peak_memory_gib", lambda: 1.0)
    second = begin(tmp_path, 1, saved, step=1)
    train(second, 1)
    assert second[0].report()[0]["peak_memory_gib"] == 1000.0


def test_an_attempt_that_was_left_behind_counts_as_time_alone(tmp_path: Path) -> None:
    saved = train(begin(tmp_path, 0, {}), 2)
    train(begin(tmp_path, 1, saved, step=2), 3)  # then the user went back to the checkpoint of before
    third = begin(tmp_path, 2, saved, step=2)
    train(third, 1)
    figures, rows = third[0].report()
    assert (figures["tokens"], figures["training_seconds"], figures["lost_seconds"]) == (30, 12.0, 6.0)
    assert [(row["steps"], row["lost_steps"]) for row in rows] == [(2, 0), (0, 3), (1, 0)]


def test_an_attempt_that_trained_nothing_and_one_of_another_folder(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    saved = train(begin(there, 0, {}), 2)
    (here / "environment.json").write_text("{}")  # stopped before its first step
    second = begin(here, 1, saved, step=2, elsewhere=True)
    train(second, 1)
    figures, rows = second[0].report()
    assert (figures["tokens"], figures["training_seconds"]) == (30, 6.0)
    assert [(row["attempt"], row["steps"], row["lost_steps"]) for row in rows] == [(None, 2, 0), (0, 0, 0), (1, 1, 0)]


@pytest.mark.parametrize("clock", [None, "", "step,seconds\n0,0.0\n1,x\n", "step,seconds\n"])
def test_what_was_not_written_down_is_not_made_up(tmp_path: Path, clock: str | None) -> None:
    """By an earlier version, or in a file that was cut short."""
    log = tmp_path / "logs" / "attempt_0"
    log.mkdir(parents=True)
    (log / "metrics.csv").write_text("step,train/loss\n2,0.5\n")
    if clock is not None:
        (log / "time.csv").write_text(clock)
    (tmp_path / "environment.json").write_text("{")
    second = begin(tmp_path, 1, {}, step=2)
    train(second, 1)
    figures, (before, _) = second[0].report()
    assert (figures["tokens"], figures["training_seconds"]) == (10, 2.0)
    assert {before[name] for name in ("command", "steps", "tokens", "training_seconds", "lost_seconds")} == {None}


def test_a_killed_run_reports_the_tokens_of_one_that_was_not(lab: Lab) -> None:
    whole = json.loads((lab.fit("--save_every", "2", run="whole") / "report.json").read_text())
    folder = lab.folder / "parts"
    command = ["fit", "--spec", "dpo", "--config", str(lab.run_file), "--run_dir", str(folder), "--save_every", "2"]
    (code,) = faulty(command, lab.folder, Fault("kill", STEP, 6))
    assert code == -9, said(lab.folder)
    parts = json.loads((lab.fit("--ckpt_path", "last", spec=None, run="parts") / "report.json").read_text())
    for name in ("tokens", "padding_share"):
        assert parts["throughput"][name] == whole["throughput"][name]
    assert [one["steps"] for one in parts["attempts"]] == [4, whole["steps"] - 4]
    assert parts["attempts"][0]["command"][:4] == ["nashtune", "fit", "--spec", "dpo"]
    assert parts["attempts"][1]["command"][-2:] == ["--ckpt_path", "last"]
    (only,) = whole["attempts"]
    assert (only["steps"], only["lost_seconds"]) == (whole["steps"], 0.0)
    speed = whole["throughput"]
    assert speed["tokens_per_second"] * speed["training_seconds"] == pytest.approx(speed["tokens"])
