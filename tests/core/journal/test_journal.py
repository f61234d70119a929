"""The journal: finished files prove themselves, unfinished ones do not count."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from nashtune.errors import InputError
from nashtune.journal.store import Journal

COLUMNS = {"prompt": [0, 1], "logp": [[-0.5, -1.25], []], "text": ["yes", "é"], "p": [0.1, math.nan]}
TENSORS = {"sums": torch.tensor([-1.5, -2.25], dtype=torch.float64), "lengths": torch.tensor([3, 4])}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "run" / "journal")
    made.write_table(1, "pairs", COLUMNS)
    made.write_tensors(1, "anchors", TENSORS)
    return made


def same(one: dict[str, list[object]], two: dict[str, list[object]]) -> bool:
    return repr(one) == repr(two)  # nan is not nan


def test_what_is_written_is_read(journal: Journal) -> None:
    assert same(journal.read_table(1, "pairs"), COLUMNS)
    tensors = journal.read_tensors(1, "anchors")
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert tensors["sums"].dtype == torch.float64


def test_what_is_there(journal: Journal, tmp_path: Path) -> None:
    journal.write_table(12, "pairs", COLUMNS)
    journal.write_table(2, "pairs", COLUMNS)
    assert journal.rounds() == [1, 2, 12]
    assert journal.names(1) == ["pairs", "anchors"] and journal.names(3) == []
    assert journal.has(1, "anchors") and not journal.has(2, "anchors") and not journal.has(3, "pairs")
    files = sorted(str(path.relative_to(tmp_path)) for path in journal.folder.glob("round-001/*"))
    assert files == [
        f"run/journal/round-001/{name}" for name in ("anchors.safetensors", "manifest.json", "pairs.parquet")
    ]
    manifest = json.loads((journal.folder / "round-001" / "manifest.json").read_text())["files"]
    assert {name: facts["rows"] for name, facts in manifest.items()} == {"pairs.parquet": 2, "anchors.safetensors": 2}
    assert Journal(tmp_path / "nothing").rounds() == [] and not Journal(tmp_path / "nothing").has(1, "pairs")


def test_equal_input_gives_equal_bytes(journal: Journal, tmp_path: Path) -> None:
    again = Journal(tmp_path / "again")
    again.write_table(1, "pairs", COLUMNS)
    again.write_tensors(1, "anchors", {name: TENSORS[name] for name in reversed(TENSORS)})
    for file in journal.folder.glob("round-001/*"):
        assert (again.folder / "round-001" / file.name).read_bytes() == file.read_bytes(), file.name


def test_empty_tables_and_tensors(journal: Journal) -> None:
    journal.write_table(2, "none", {"prompt": pa.array([], type=pa.int32()), "tokens": []})
    journal.write_tensors(2, "empty", {"sums": torch.zeros(0), "one": torch.tensor(1.0)})
    assert journal.read_table(2, "none") == {"prompt": [], "tokens": []}
    assert journal.read_tensors(2, "empty")["sums"].shape == (0,)


def test_tensors_that_are_views_are_written_as_they_look(journal: Journal) -> None:
    wide = torch.arange(6.0).reshape(2, 3)
    journal.write_tensors(2, "views", {"column": wide[:, 1].requires_grad_(), "turned": wide.clone().T})
    found = journal.read_tensors(2, "views")
    assert torch.equal(found["column"], torch.tensor([1.0, 4.0])) and torch.equal(found["turned"], wide.T)


@pytest.mark.parametrize(("file", "name"), [("pairs.parquet", "pairs"), ("anchors.safetensors", "anchors")])
@pytest.mark.parametrize("harm", ["torn", "altered", "missing"])
def test_a_finished_file_that_is_not_what_was_written_is_named(
    journal: Journal, file: str, name: str, harm: str
) -> None:
    path = journal.folder / "round-001" / file
    data = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    elif harm == "torn":
        path.write_bytes(data[:-20])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    said = "is missing" if harm == "missing" else "is torn or was altered"
    with pytest.raises(InputError, match=rf"round-001/{file} {said}.*another --run_dir"):
        journal.read_table(1, name) if file.endswith("parquet") else journal.read_tensors(1, name)


@pytest.mark.parametrize("harm", ["torn", "missing", "older"])
def test_every_file_is_looked_for_before_work_begins(journal: Journal, harm: str) -> None:
    other = Journal(journal.folder, writer=1)
    other.write_table(1, "scores", {"score": [1.0]})
    journal.check()
    path, manifest = journal.folder / "round-001" / "scores.parquet", "manifest-0001.json"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    if harm == "older":  # sizes were not kept: its content is looked at when it is read
        content = json.loads((path.with_name(manifest)).read_text())
        del content["files"]["scores.parquet"]["bytes"]
        path.with_name(manifest).write_text(json.dumps(content))
        journal.check()
        return
    said = "is missing, and" if harm == "missing" else "is torn or was altered: it is not what"
    with pytest.raises(InputError, match=rf"scores\.parquet {said} {manifest}"):
        journal.check()
    Journal(journal.folder.parent / "nothing").check()


def test_a_manifest_with_a_bad_byte_is_named(journal: Journal) -> None:
    path = journal.folder / "round-001" / "manifest.json"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"round-001/manifest\.json is torn or was altered"):
        journal.check()


@pytest.mark.parametrize("cut", [0, 1, 40, 200])
def test_a_manifest_that_is_cut_off_is_named(journal: Journal, cut: int) -> None:
    path = journal.folder / "round-001" / "manifest.json"
    path.write_bytes(path.read_bytes()[:cut])
    for use in (lambda: journal.read_table(1, "pairs"), lambda: journal.has(1, "pairs")):
        with pytest.raises(InputError, match=r"round-001/manifest\.json is torn or was altered"):
            use()


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": 3}', '{"files": {"pairs.parquet": {}}}'])
def test_a_manifest_of_something_else_is_named(journal: Journal, content: str) -> None:
    (journal.folder / "round-001" / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json is torn or was altered"):
        journal.read_table(1, "pairs")


def test_a_kill_between_file_and_manifest_leaves_the_file_unfinished(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its name already; the next attempt writes another and finishes it."""
    monkeypatch.setattr(Journal, "_write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        journal.write_table(1, "scores", {"score": [1.0]})
    assert (journal.folder / "round-001" / "scores.parquet").exists()
    assert not journal.has(1, "scores") and journal.names(1) == ["pairs", "anchors"]
    with pytest.raises(InputError, match=r"scores\.parquet is not in .*manifest\.json"):
        journal.read_table(1, "scores")
    monkeypatch.undo()
    journal.write_table(1, "scores", {"score": [2.0]})
    assert journal.read_table(1, "scores") == {"score": [2.0]}


def test_a_kill_while_a_file_is_written_leaves_nothing_of_it(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nashtune.journal.store.sha256_of", killed)
    with pytest.raises(KeyboardInterrupt):
        journal.write_table(2, "scores", {"score": [1.0]})
    assert journal.rounds() == [1] and not list(journal.folder.glob("round-002/*"))


def test_a_kill_while_a_finished_file_is_replaced_leaves_it_unfinished_and_not_altered(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Journal._write_manifest
    monkeypatch.setattr(Journal, "_write_manifest", lambda self, *args: (written(self, *args), killed()))
    with pytest.raises(KeyboardInterrupt):
        journal.write_table(1, "pairs", {"prompt": [7]})
    monkeypatch.undo()
    assert journal.names(1) == ["anchors"]
    journal.write_table(1, "pairs", {"prompt": [7]})
    assert journal.read_table(1, "pairs") == {"prompt": [7]} and journal.names(1) == ["anchors", "pairs"]


def test_a_full_disk_keeps_what_was_finished(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(
        InputError, match=r"scores\.parquet cannot be written.*No space.*--ckpt_path last --run_dir .*run\)$"
    ):
        journal.write_table(1, "scores", {"score": [1.0]})
    assert journal.names(1) == ["pairs", "anchors"] and same(journal.read_table(1, "pairs"), COLUMNS)


def test_a_name_that_is_not_there_says_what_is(journal: Journal) -> None:
    with pytest.raises(InputError, match=r"did you mean 'pairs\.parquet'.*anchors\.safetensors"):
        journal.read_table(1, "pair")


def killed(*args: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def empty(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "empty")


def test_each_process_has_its_own_manifest_and_reads_all(empty: Journal) -> None:
    others = [Journal(empty.folder, writer=rank) for rank in (1, 2)]
    empty.write_table(1, "pairs", {"prompt": [0]})
    for rank, other in enumerate(others, start=1):
        other.write_table(1, f"scores-{rank:04d}", {"mean": [float(rank)]})
    assert {path.name for path in (empty.folder / "round-001").glob("*.json")} == {
        *("manifest.json", "manifest-0001.json", "manifest-0002.json")
    }
    for one in (empty, *others):
        assert one.names(1) == ["pairs", "scores-0001", "scores-0002"]
        assert one.read_table(1, "scores-0002") == {"mean": [2.0]}


def test_a_round_of_which_rank_0_wrote_nothing_is_a_round(empty: Journal) -> None:
    Journal(empty.folder, writer=3).write_table(2, "scores", {"mean": [0.5]})
    assert empty.rounds() == [2] and empty.has(2, "scores")


def test_a_file_that_two_processes_claim_is_named(empty: Journal) -> None:
    for one in (empty, Journal(empty.folder, writer=1)):
        one.write_table(1, "pairs", {"prompt": [0]})
    with pytest.raises(InputError, match=r"manifest-0001\.json names pairs\.parquet, and so does manifest\.json"):
        empty.read_table(1, "pairs")


def test_a_missing_file_of_another_process_is_named_with_its_manifest(empty: Journal) -> None:
    Journal(empty.folder, writer=1).write_table(1, "scores", {"mean": [0.5]})
    (empty.folder / "round-001" / "scores.parquet").unlink()
    with pytest.raises(InputError, match=r"scores\.parquet is missing, and manifest-0001\.json beside it names it"):
        empty.read_table(1, "scores")


@pytest.mark.parametrize("name", ["round-x", "round-1", "round-001 (copy)", "round-٣"])
def test_a_folder_that_is_no_round_is_named(journal: Journal, name: str) -> None:
    (journal.folder / name).mkdir()
    assert journal.rounds() == [1]  # nothing in it is finished, so it is not looked at
    (journal.folder / name / "manifest.json").write_text('{"files": {}}')
    with pytest.raises(InputError, match=r"is no round of this journal: its rounds are called round-001"):
        journal.rounds()
