from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nashtune.errors import InputError
from nashtune.training.run_folder import RUN_DIR_VARIABLE, choose_run_dir, claim, next_attempt


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RUN_DIR_VARIABLE, "of/an/earlier/run")


def test_runs_are_numbered_and_never_share_a_folder() -> None:
    first = choose_run_dir(None, "dpo", resumed=None)
    claim(first, {"seed": 1}, 0)
    second = choose_run_dir(None, "dpo", resumed=None)
    assert (first, second) == (Path("runs/dpo-001"), Path("runs/dpo-002"))


def test_a_folder_that_holds_another_run_is_refused_and_left_alone() -> None:
    folder = Path("mine")
    claim(folder, {"seed": 1}, 0)
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
        claim(folder, {"attempt": name}, attempt)
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {"attempt": "first"}
    assert yaml.safe_load((folder / "config.1.yaml").read_text()) == {"attempt": "second"}


def test_other_ranks_take_the_folder_of_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, "runs/dpo-007")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_run_dir(None, "dpo", resumed=None) == Path("runs/dpo-007")


def test_a_resume_into_another_runs_folder_is_refused(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        claim(folder, {}, 0)
    assert choose_run_dir(str(ours), "dpo", resumed=ours) == ours
    assert choose_run_dir(None, "dpo", resumed=ours) == ours
    with pytest.raises(InputError, match="holds another run"):
        choose_run_dir(str(theirs), "dpo", resumed=ours)


def test_two_runs_that_start_at_once_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    real_exists = Path.exists
    claim(folder, {}, 0)
    monkeypatch.setattr(Path, "exists", lambda self: False if self == folder else real_exists(self))
    with pytest.raises(InputError, match="another run has just taken"):
        claim(folder, {}, 0)
