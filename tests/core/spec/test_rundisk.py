"""What `check` says of the disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nashtune.cli.main import main
from nashtune.memory import disk

LEAST = 12 * (262 * 32 + 2 * (32 * 96 + 3 * 32 * 64))
"""Of the tiny model with adamw: float32 and two moments, norms left out."""


@pytest.fixture
def check(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The result of a check of ten pairs, with so many bytes free."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Q{i}", "chosen": "yes", "rejected": "no"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["--policy.path", str(tiny), "--data.train", "rows.jsonl", "--data.batch_size", "2"]

    def run(*options: str, free: int = 10**9, spec: str = "dpo") -> dict[str, Any]:
        monkeypatch.setattr(disk, "free_space", lambda folder: free)
        line = [*own, "--trainer.accelerator", "cpu", "--spec.optimizer.name", "adamw", *options]
        assert main(["check", spec, "--json", *line]) == 0
        (result,) = json.loads(capsys.readouterr().out)
        return dict(result)

    return run


def said(result: dict[str, Any]) -> list[str]:
    return [note for note in result["notes"] if "disk" in note or "first checkpoint" in note]


def test_the_line_stands_beside_memory(check: Callable[..., Any]) -> None:
    result = check("--save_every", "2", "--keep_checkpoints", "2")  # 5 steps: saved three times
    assert said(result) == [
        "disk: 366 kB a checkpoint, 2 kept, up to 1.1 MB while saving, 846 kB with the exported model; free: 1 GB"
    ]
    found = result["disk"]
    assert (found["kept"], found["free"], found["snapshots"]) == (2, 10**9, 0)
    assert found["while_saving"] == 3 * found["checkpoint"] == found["peak"]


def test_a_run_that_saves_once_needs_room_for_one(check: Callable[..., Any]) -> None:
    found = check()["disk"]
    assert found["while_saving"] == found["checkpoint"]
    assert found["peak"] == found["checkpoint"] + found["export"]
    assert check("--trainer.max_epochs", "-1")["disk"]["while_saving"] == 2 * found["checkpoint"]


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (LEAST - 1, "the first checkpoint has no room where the run folder will lie: fit refuses"),
        (LEAST, "the run needs 480 kB of disk at its peak, and less is free"),
        (480_500, None),
    ],
)
def test_too_little_is_a_note(check: Callable[..., Any], free: int, words: str | None) -> None:
    notes = said(check(free=free))
    assert len(notes) == (1 if words is None else 2)
    assert words is None or words in notes[1]


def test_a_game_says_its_total_once(check: Callable[..., Any]) -> None:
    result = check("--spec.oracle", "vader", "--spec.schedule.rounds", "2", spec="onpo")
    first, second = said(result)
    assert first.startswith("disk: 5 snapshots of 108 kB; at most ") and second.startswith("disk: 366 kB a checkpoint")
    assert "while saving" not in second
    assert result["disk"]["peak"] == result["plan"]["disk_bytes"]
    assert result["disk"]["snapshots"] == 5 * result["plan"]["snapshot_bytes"]


def test_weights_for_an_engine_lie_there_twice(check: Callable[..., Any]) -> None:
    own = ("--spec.oracle", "vader", "--spec.schedule.rounds", "2")
    plain = check(*own, spec="onpo")["disk"]
    result = check(*own, "--spec.sampler", "{name: vllm, servers: [http://localhost:8000]}", spec="onpo")
    assert "beside them 108 kB for the sampler's engine, twice while it is given new weights" in said(result)[1]
    assert result["disk"]["peak"] == result["plan"]["disk_bytes"] + 2 * result["disk"]["pushed"]
    assert plain["pushed"] == 0 and result["disk"]["checkpoint"] == plain["checkpoint"]


def test_a_critic_counts(check: Callable[..., Any], heads: Path, tmp_path: Path) -> None:
    """As large as the policy where it is a copy of the oracle's model; not known where that is not there yet."""

    def of(path: str, value_init: str) -> dict[str, Any]:
        oracle = ("--spec.oracle", "reward_model", "--spec.oracle.path", path)
        more = ("--data.prompts_per_round", "1", "--spec.loss.value_init", value_init)
        return dict(check(*oracle, *more, spec="ppo"))

    copy, zero = of(str(heads), "reward_model"), of(str(heads), "zero")
    assert copy["disk"]["checkpoint"] > 1.8 * zero["disk"]["checkpoint"]
    (tmp_path / "later").mkdir()
    for path in ("hub:owner/name", str(tmp_path / "later")):
        unknown = of(path, "reward_model")
        assert unknown["disk"] is None and "disk: not predicted for this model or method" in unknown["notes"]


def test_it_says_where_it_does_not_know(check: Callable[..., Any]) -> None:
    result = check("--trainer.strategy", "deepspeed_stage_2", "--trainer.accelerator", "gpu")
    assert result["disk"] is None and "disk: not predicted for this strategy" in result["notes"]


def test_a_run_that_is_there_owns_part_of_it(check: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "runs" / "a" / "checkpoints").mkdir(parents=True)
    assert len(said(check("--run_dir", "runs/a", free=1))) == 1
