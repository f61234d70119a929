"""A run folder in which something is of the wrong kind is refused before anything is begun there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Lab
from nashtune.confined import refuse_strange
from nashtune.errors import InputError

FOLDERS = [
    *("logs", "logs/attempt_1", "tensorboard", "tensorboard/attempt_0", "checkpoints", "export", "snapshots"),
    *("journal", "journal/round-002", "answers", "answers/round-001", "oracle", "vllm"),
    *("runs", "judges", "so_far", "journal/judgements", "runs/dpo/seed-0/logs", "train/run/export"),
]
FILES = [
    *("curves.png", "win_rates.png", "reliability.png", "config.1.yaml", "environment.json", "report.json"),
    *("samples.json", "logs/attempt_0/metrics.csv", "logs/attempt_0/time.csv", "logs/attempt_0/hparams.yaml"),
    *("snapshots/main@1.safetensors", "snapshots/snapshots.json", "journal/identity.json", "oracle/round-001.json"),
    *("journal/round-001/pairs.parquet", "journal/round-001/manifest-0001.json", ".lock", ".ranks.lock"),
    *(".report.json.partial", ".curves.png.partial", "answers.parquet", "index.html", "scores.jsonl"),
    *("checkpoints/step=1.ckpt/state.pt", "checkpoints/step=1.ckpt/files.json"),
]


def refused_as(folder: Path, name: str) -> str:
    with pytest.raises(InputError) as refused:
        refuse_strange(folder)
    return str(refused.value).removeprefix(f"{folder / name} is ").partition(", which no run has written there; rem")[0]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_where_a_folder_belongs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    assert refused_as(tmp_path, name) == "a file"
    path.unlink()
    (tmp_path / "other").write_text("x")
    path.symlink_to(tmp_path / "other")
    assert refused_as(tmp_path, name) == "a file"
    (tmp_path / "other").unlink()
    assert refused_as(tmp_path, name) == "a link to nothing"
    (tmp_path / "other").mkdir()
    refuse_strange(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_where_a_file_belongs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir(parents=True)
    assert refused_as(tmp_path, name) == "a folder"
    path.rmdir()
    path.symlink_to("other")
    assert refused_as(tmp_path, name) == "a link to nothing"
    (tmp_path / name).parent.joinpath("other").write_text("x")
    refuse_strange(tmp_path)


def test_what_is_unusual_is_no_harm(tmp_path: Path) -> None:
    """Also links to what a run has removed, or a pipeline is about to make."""
    for folder in ("checkpoints/step=2.ckpt", ".step=3.ckpt.partial", "notes", "runs/answers", "oracle-old"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("checkpoints/step=1.ckpt", "journal.tar", "logs.txt", "snapshots~"):
        (tmp_path / file).write_text("x")
    (tmp_path / "checkpoints" / "latest").symlink_to("step=0.ckpt")
    (tmp_path / "notes" / "seed-0").symlink_to("../run/seed-0/export")
    refuse_strange(tmp_path)
    (tmp_path / "checkpoints" / "step=0.ckpt").symlink_to("step=00.ckpt")
    assert refused_as(tmp_path, "checkpoints/step=0.ckpt") == "a link to nothing"


@pytest.mark.parametrize("name", ["logs", "logs/attempt_1", "tensorboard", "curves.png"])
def test_nothing_is_begun_where_the_end_would_fail(lab: Lab, refused: Callable[..., str], name: str) -> None:
    run = lab.fit("--trainer.max_steps", "1")
    path = run / name
    if path.exists():
        path.rename(run / "moved")
    if path.suffix:
        path.mkdir()
    else:
        path.write_text("x")
    message = refused("fit", "--ckpt_path", "last", "--run_dir", "run", "--trainer.max_steps", "2")
    assert f"run/{name} is a f" in message and "which no run has written there" in message
    assert not (run / "config.1.yaml").exists(), "nothing was begun"


def test_a_link_to_itself_in_place_of_a_checkpoint(lab: Lab, refused: Callable[..., str]) -> None:
    (lab.folder / "loop.ckpt").symlink_to("loop.ckpt")
    assert "--ckpt_path: loop.ckpt is a link to itself" in refused("fit", "--ckpt_path", "loop.ckpt")


def test_a_run_ends_where_its_model_was_moved_within_its_folder(lab: Lab) -> None:
    run = lab.fit("--trainer.max_steps", "1")
    (run / "export").rename(run / "first")
    (run / "export").symlink_to("first")
    lab.fit("--ckpt_path", "last", "--trainer.max_steps", "2", spec=None)
    assert (run / "export" / "config.json").is_file() and not (run / "export").is_symlink()
    assert (run / "first" / "config.json").is_file()
