from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nashtune.errors import InputError
from nashtune.training.run_folder import RUN_DIR_VARIABLE, choose_run_dir, claim


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RUN_DIR_VARIABLE, "of/an/earlier/run")


def test_runs_are_numbered_and_never_share_a_folder() -> None:
    first = choose_run_dir(None, "dpo", resume=False)
    claim(first, {"seed": 1})
    second = choose_run_dir(None, "dpo", resume=False)
    assert (first, second) == (Path("runs/dpo-001"), Path("runs/dpo-002"))


def test_a_folder_that_holds_another_run_is_refused_and_left_alone() -> None:
    folder = Path("mine")
    claim(folder, {"seed": 1})
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(
        InputError, match=r"mine holds a run, and a run is never overwritten.*--ckpt_path last --run_dir mine"
    ):
        choose_run_dir("mine", "dpo", resume=False)
    assert (folder / "config.yaml").read_bytes() == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty"):
        choose_run_dir("thesis", "dpo", resume=False)


def test_a_resume_keeps_the_first_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert claim(folder, {"attempt": "first"}) == 0
    assert claim(folder, {"attempt": "second"}) == 1
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {"attempt": "first"}
    assert yaml.safe_load((folder / "config.1.yaml").read_text()) == {"attempt": "second"}


def test_other_ranks_take_the_folder_of_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, "runs/dpo-007")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_run_dir(None, "dpo", resume=False) == Path("runs/dpo-007")
