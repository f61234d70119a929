"""The disk that a comparison will take."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nashtune.comparison import room
from nashtune.comparison.folder import run_folder
from nashtune.comparison.plan import Entry, make_entries
from nashtune.comparison.room import disk_notes

SEEDS = (0, 1)


@pytest.fixture
def entries(ask: Callable[..., object]) -> Sequence[Entry]:
    request = ask("dpo", "online_dpo", "--steps", "3", "--seeds", "2", "--spec.schedule.rounds", "2")
    return make_entries(request)  # type: ignore[arg-type]


def with_free(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(room, "free_space", lambda folder: int(free))


def left(entries: Sequence[Entry]) -> list[int]:
    return [entry.disk["at_the_end"] for _ in SEEDS for entry in entries if entry.disk is not None]


def test_what_is_predicted_is_what_lies_there(entries: Sequence[Entry], whole: Path) -> None:
    for entry, predicted in zip(entries, left(entries), strict=False):
        run = run_folder(whole / "out", entry.name, 0)
        kept = [file for name in ("checkpoints", "snapshots", "export") for file in (run / name).rglob("*")]
        assert sum(file.stat().st_size for file in kept if file.is_file()) == pytest.approx(predicted, rel=0.1)


def test_all_that_is_to_come_is_added_up(entries: Sequence[Entry], tmp_path: Path, monkeypatch) -> None:
    with_free(monkeypatch, 1e12)
    (line,) = disk_notes(entries, SEEDS, tmp_path / "out")
    assert line.startswith("disk: 4 trainings take ") and line.endswith("; free: 1e+03 GB")
    assert f"{sum(left(entries)) / 1e6:.3g} MB, up to " in line or f"{sum(left(entries)) / 1e3:.3g} kB, up to " in line


def test_trainings_that_have_ended_are_not_counted(entries: Sequence[Entry], again: Path) -> None:
    folder = again / "out"
    assert disk_notes(entries, SEEDS, folder) == []
    shutil.rmtree(run_folder(folder, "dpo", 1) / "export")
    assert disk_notes(entries, SEEDS, folder)[0].startswith("disk: 1 training takes ")


@pytest.mark.parametrize("fits", [0, 1, 3])
def test_how_far_the_disk_reaches(entries: Sequence[Entry], tmp_path: Path, monkeypatch, fits: int) -> None:
    each = [entry.disk for _ in SEEDS for entry in entries if entry.disk is not None]
    with_free(monkeypatch, sum(left(entries)[:fits]) + each[fits]["peak"] - 1)
    _, note = disk_notes(entries, SEEDS, tmp_path / "out")
    assert note.startswith(f"note: the disk has room for {fits} of 4 trainings")


def test_check_says_it_and_so_does_the_comparison(pit, capsys, command) -> None:
    from nashtune.cli.main import main

    assert main([*command, "--check"]) == 0
    said = capsys.readouterr().out
    assert "disk: 4 trainings take " in said and said.index("disk: ") < said.index("all is well")
