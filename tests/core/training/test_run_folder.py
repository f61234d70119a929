from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from nashtune.errors import InputError
from nashtune.training.lock import RUN_DIR_VARIABLE
from nashtune.training.run_folder import choose_run_dir, claim, next_attempt


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RUN_DIR_VARIABLE, "of/an/earlier/run")


def test_runs_are_numbered_and_never_share_a_folder() -> None:
    first = choose_run_dir(None, "dpo", resumed=None)
    with claim(first, {"seed": 1}, 0):
        pass
    second = choose_run_dir(None, "dpo", resumed=None)
    assert (first, second) == (Path("runs/dpo-001"), Path("runs/dpo-002"))


def test_a_folder_that_holds_another_run_is_refused_and_left_alone() -> None:
    folder = Path("mine")
    with claim(folder, {"seed": 1}, 0):
        pass
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(
        InputError, match=r"mine holds another run, and a run is never overwritten.*--ckpt_path last --run_dir mine"
    ):
        choose_run_dir("mine", "dpo", resumed=None)
    assert (folder / "config.yaml").read_bytes() == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty"):
        choose_run_dir("thesis", "dpo", resumed=None)


def test_a_resume_keeps_the_first_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for attempt, name in enumerate(("first", "second")):
        assert next_attempt(folder) == attempt
        with claim(folder, {"attempt": name}, attempt):
            pass
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {"attempt": "first"}
    assert yaml.safe_load((folder / "config.1.yaml").read_text()) == {"attempt": "second"}


def test_other_ranks_take_the_folder_of_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, "runs/dpo-007")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_run_dir(None, "dpo", resumed=None) == Path("runs/dpo-007")


def test_a_resume_into_another_runs_folder_is_refused(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        with claim(folder, {}, 0):
            pass
    assert choose_run_dir(str(ours), "dpo", resumed=ours) == ours
    assert choose_run_dir(None, "dpo", resumed=ours) == ours
    with pytest.raises(InputError, match="holds another run"):
        choose_run_dir(str(theirs), "dpo", resumed=ours)


def test_two_runs_that_start_at_once_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    real_exists = Path.exists
    with claim(folder, {}, 0):
        pass
    monkeypatch.setattr(Path, "exists", lambda self: False if self == folder else real_exists(self))
    with pytest.raises(InputError, match="another run has just taken"):
        with claim(folder, {}, 0):
            pass


@pytest.mark.parametrize("name", ["logs/attempt_0/time.csv", ".lock"])
def test_what_is_no_file_of_a_run_folder_is_refused(name: str, tmp_path: Path) -> None:
    """To open a pipe is to wait for somebody at its other end."""
    folder = tmp_path / "run"
    with claim(folder, {"seed": 1}, 0):
        pass
    odd = folder / name
    odd.parent.mkdir(parents=True, exist_ok=True)
    odd.unlink(missing_ok=True)
    os.mkfifo(odd)
    with pytest.raises(InputError, match="is neither a file nor a folder"):
        choose_run_dir(str(folder), "dpo", resumed=folder)
    odd.unlink()
    odd.symlink_to(odd.name)
    with pytest.raises(InputError, match="is a link"):
        choose_run_dir(str(folder), "dpo", resumed=folder)
    odd.unlink()
    odd.mkdir()
    with pytest.raises(InputError, match="is a folder, which no run has written there"):
        choose_run_dir(str(folder), "dpo", resumed=folder)
    odd.rmdir()
    assert choose_run_dir(str(folder), "dpo", resumed=folder) == folder
