"""Names in files that others may have written do not lead out of the folder that they belong to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab import Lab
from nashtune.confined import inside, is_plain, refuse_strange
from nashtune.errors import InputError
from nashtune.files import atomic_path
from nashtune.interfaces.pairing import Paired
from nashtune.journal.records import read_pairs, write_pairs
from nashtune.journal.store import Journal
from nashtune.models.snapshots import SnapshotBank
from nashtune.pipeline.folder import choose_folder, held
from nashtune.samplers.recorded_journal import TYPES, JournalSource, read_prompts
from nashtune.spec.resolve import resolve
from nashtune.training.lock import hold


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "journal")
    write_pairs(journal, 1, [(0, Paired(chosen=0, rejected=1, p_chosen=0.75))], {"tie": 1})
    return journal


def poison(journal: Journal, name: str, data: bytes) -> None:
    """Another content under a name, with the manifest made to agree."""
    folder = journal.folder / "round-001"
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest()}  # without rows: what is in it decides
    (folder / "manifest.json").write_text(json.dumps(manifest))


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("name", ["../../outside.parquet", "/etc/passwd", "..", "", "a/b.parquet", "a\\b.parquet"])
def test_a_manifest_names_files_beside_it(journal: Journal, tmp_path: Path, name: str) -> None:
    manifest = journal.folder / "round-001" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][name] = {"sha256": "0" * 64, "rows": 1}
    manifest.write_text(json.dumps(content))
    for read in (
        lambda: journal.names(1),
        lambda: read_pairs(journal, 1),
        lambda: JournalSource(tmp_path).scores(1, 0),
    ):
        with pytest.raises(InputError, match=r"manifest\.json is torn or was altered"):
            read()


def test_a_journals_file_is_no_link_out_of_it(journal: Journal, tmp_path: Path) -> None:
    file = journal.folder / "round-001" / "pairs.parquet"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="which is no file in"):
        read_pairs(journal, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"PAR1 and nothing else",
        parquet(pa.table({"prompt": ["zero"], "chosen": [0]})),
        parquet(pa.table({"x": [1]})),
        parquet(pa.table({"prompt": [[0]], "chosen": [{"a": 1}], "rejected": [1]})),
    ],
)
def test_a_journals_table_has_the_columns_that_belong_there(journal: Journal, data: bytes) -> None:
    poison(journal, "pairs.parquet", data)
    with pytest.raises(InputError, match=r"pairs\.parquet is not the table that belongs here"):
        read_pairs(journal, 1)


@pytest.mark.parametrize(
    ("part", "ids"),
    [([0, 2_000_000_000], [[1], [2]]), ([0, -1], [[1], [2]]), ([0, None], [[1], [2]]), ([0, 1], [[1], None])],
)
def test_parts_of_a_journal_are_no_more_than_its_prompts(journal: Journal, part: list[int], ids: list[object]) -> None:
    table = {
        "prompt": pa.array([0, 1]),
        "part": pa.array(part, pa.int64()),
        "token_ids": pa.array(ids, TYPES["token_ids"]),
    }
    poison(journal, "prompts.parquet", parquet(pa.table(table)))
    with pytest.raises(InputError, match=r"prompts\.parquet was altered"):
        read_prompts(journal, 1)
    poison(journal, "prompts.parquet", parquet(pa.table({**table, "part": ["zero", "one"]})))
    with pytest.raises(InputError, match=r"prompts\.parquet is not the table that belongs here"):
        read_prompts(journal, 1)


def test_tensors_of_a_journal_that_are_none(journal: Journal) -> None:
    poison(journal, "anchors.safetensors", b"\xff" * 64)
    with pytest.raises(InputError, match=r"anchors\.safetensors holds no tensors"):
        journal.read_tensors(1, "anchors")


@pytest.mark.parametrize("name", ["../../other/model", "/tmp/model", "a/b", ".hidden"])
def test_a_snapshot_has_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "snapshots.json").write_text(json.dumps({name: {"file": "x", "sha256": "0" * 64}}))
    with pytest.raises(InputError, match=r"snapshots\.json is torn or was altered"):
        SnapshotBank(tmp_path).names()


def test_a_snapshot_is_no_link_out_of_its_folder(tmp_path: Path) -> None:
    bank = tmp_path / "snapshots"
    bank.mkdir()
    (tmp_path / "other.safetensors").write_bytes(b"x")
    (bank / "main@1.safetensors").symlink_to(tmp_path / "other.safetensors")
    digest = hashlib.sha256(b"x").hexdigest()
    (bank / "snapshots.json").write_text(json.dumps({"main@1": {"file": "main@1.safetensors", "sha256": digest}}))
    with pytest.raises(InputError, match="which is no file in"):
        SnapshotBank(bank).load("main@1", None)  # type: ignore[arg-type]  # the file is looked at first


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/b", ".."])
def test_a_spec_is_called_by_a_name_because_folders_are_called_after_it(name: str) -> None:
    with pytest.raises(InputError, match="run folders are called after it, so it is a word and no path"):
        resolve({**resolve("dpo").to_dict(), "name": name})


def test_a_pipeline_is_called_by_a_name(lab: Lab, refused: Callable[..., str]) -> None:
    (lab.folder / "p.yaml").write_text("name: ../../evil\nstages:\n  a: {name: fit, spec: dpo}\n")
    assert "so it is no path" in refused("run", "p.yaml")
    (lab.folder / "p.yaml").write_text("stages:\n  ../../evil: {name: fit, spec: dpo}\n")
    assert "a stage's name is made of a-z" in refused("run", "p.yaml")


def test_a_stages_output_lies_in_the_pipelines_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path)
    for path in ("../secret", "/etc/passwd", "link/secret", "", None, 3, "a\0b"):
        with pytest.raises(InputError, match=r"stage\.json names .* which is no file in"):
            inside(tmp_path / "run", path, "stage.json")
    assert inside(tmp_path / "run", "a/export", "stage.json") == tmp_path / "run" / "a/export"


@pytest.mark.parametrize("path", ["loop", "loop/export", "\ud800"])
def test_a_link_to_itself_and_half_a_character_name_no_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"stage\.json names '.*', which is no file in"):
        file = inside(tmp_path, path, "stage.json")
        raise InputError(f"stage.json names '{path}', which is no file in: {file.read_bytes()!r}")


@pytest.mark.parametrize("where", ["checkpoints", "logs", ".lock", "config.1.yaml", "snapshots/deep"])
def test_a_run_does_not_go_on_through_a_link_out_of_its_folder(
    lab: Lab, refused: Callable[..., str], where: str, tmp_path: Path
) -> None:
    """A run folder from elsewhere, in which a link would have the next attempt write over something."""
    run = lab.fit("--trainer.max_steps", "1")
    outside = tmp_path / "outside"
    target = run / where
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        target.rename(outside)
    elif "." in where:
        outside.write_text("precious")
    else:
        outside.mkdir()
    target.symlink_to(outside)
    before = sorted(os.listdir(outside)) if outside.is_dir() else outside.read_text()
    message = refused("fit", "--ckpt_path", "last", "--run_dir", "run", "--trainer.max_steps", "2")
    assert f"run/{where}: is a link to {outside}, out of the run folder, and the run would be written" in message
    assert before == (sorted(os.listdir(outside)) if outside.is_dir() else outside.read_text())


def test_a_checkpoint_that_is_a_link_is_named(lab: Lab, refused: Callable[..., str], tmp_path: Path) -> None:
    """And one that lies elsewhere and leads into a run's folder is of that run."""
    run = lab.fit("--trainer.max_steps", "1")
    checkpoint = run / "checkpoints" / "step=1.ckpt"
    (lab.folder / "mine.ckpt").symlink_to(checkpoint)
    more = ("--trainer.max_steps", "2")
    lab.fit("--ckpt_path", "mine.ckpt", *more, spec=None)
    (run / "checkpoints" / "step=2.ckpt").rename(tmp_path / "moved.ckpt")
    (run / "checkpoints" / "step=2.ckpt").symlink_to(tmp_path / "moved.ckpt")
    for asked in (("--ckpt_path", "last", "--run_dir", "run"), ("--ckpt_path", "run/checkpoints/step=2.ckpt")):
        message = refused("fit", *asked, "--trainer.max_steps", "3")
        assert f"step=2.ckpt: is a link to {tmp_path / 'moved.ckpt'}, out of the run folder" in message


@pytest.mark.parametrize("name", [".lock", ".config.yaml.partial", ".ranks.lock"])
def test_a_folder_of_hidden_files_has_no_link_out_of_it(
    lab: Lab, refused: Callable[..., str], tmp_path: Path, name: str
) -> None:
    """Such a folder counts as empty, and a run or a pipeline begins in it."""
    (tmp_path / "precious").write_text("precious")
    (lab.folder / "run").mkdir()
    (lab.folder / "run" / name).symlink_to(tmp_path / "precious")
    (lab.folder / "p.yaml").write_text("stages:\n  a: {name: fit, spec: dpo, run: ./run.yaml}\n")
    assert "out of the run folder" in refused("fit", "--spec", "dpo", "--config", "run.yaml", "--run_dir", "run")
    with pytest.raises(InputError, match="out of the run folder"):
        choose_folder(str(lab.folder / "run"), "p")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    """One that was put there after the folder was looked at."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    for lock in (hold, held):
        with pytest.raises(InputError, match=r"\.lock is a link"), lock(tmp_path):
            pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_links_inside_a_folder_and_to_it_are_no_harm(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    (run / "latest").symlink_to("logs")
    (tmp_path / "alias").symlink_to(run)
    refuse_strange(run)
    refuse_strange(tmp_path / "alias")


def test_writing_follows_no_link(tmp_path: Path) -> None:
    """Neither under the final name nor under that of the unfinished file."""
    for name in ("file.json", ".file.json.partial"):
        precious = tmp_path / "precious"
        precious.write_text("precious")
        (tmp_path / name).symlink_to(precious)
        with atomic_path(tmp_path / "file.json") as partial:
            partial.write_text("new")
        assert precious.read_text() == "precious"
        assert (tmp_path / "file.json").read_text() == "new" and not (tmp_path / "file.json").is_symlink()
        (tmp_path / "file.json").unlink()


def test_plain_names() -> None:
    assert is_plain("main@1.safetensors") and is_plain("...")
    assert not any(map(is_plain, ("", ".", "..", "a/b", "/a", "a\\b", "a\0", None, 3)))
