from __future__ import annotations

import gzip
import json
import random
import re
from types import SimpleNamespace

import pytest

from nashtune.data import sources
from nashtune.data.sources import read_source, source_digest, source_format
from nashtune.errors import InputError

ROWS = [{"prompt": f"p{i}", "chosen": "ä", "rejected": "b"} for i in range(3)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)


def test_json_lines_with_blank_lines_and_a_byte_order_mark(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\n\n").encode())
    rows = list(read_source(str(path)))
    assert [row.data for row in rows] == ROWS
    assert [row.where for row in rows] == [f"{path}:1", f"{path}:3", f"{path}:5"]


def test_gzip(tmp_path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    assert [row.data for row in read_source(str(path))] == ROWS


def test_parquet(tmp_path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    rows = list(read_source(str(path)))
    assert [row.data for row in rows] == ROWS
    assert rows[2].where == f"{path}:row 3"


def test_a_missing_file_names_the_nearest_one(tmp_path) -> None:
    (tmp_path / "train.jsonl").write_text(TEXT)
    with pytest.raises(InputError, match=r"trian\.jsonl: no such file; did you mean 'train\.jsonl'\?"):
        next(read_source(str(tmp_path / "trian.jsonl")))
    with pytest.raises(InputError, match=r"the folder .* does not exist either"):
        next(read_source(str(tmp_path / "no" / "a.jsonl")))
    with pytest.raises(InputError, match="holds no data file"):
        next(read_source(str(_folder(tmp_path) / "a.jsonl")))


def _folder(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_a_folder_and_an_unknown_format(tmp_path) -> None:
    with pytest.raises(InputError, match="is a folder; give one file"):
        next(read_source(str(tmp_path)))
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(InputError, match=r"unknown format '\.csv'; rows are read from \.jsonl"):
        next(read_source(str(tmp_path / "a.csv")))


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_data(tmp_path, content) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=r"a\.jsonl: no rows"):
        next(read_source(str(path)))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"prompt": "a", }', "broken JSON at character 17"),
        (b'{"prompt": "a"', "broken JSON at character 15"),
        (b'{"prompt": "\xff"}', "not UTF-8 \\(byte 13 of the line\\)"),
        (b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' is given twice"),
        (b'["a"]', "a JSON object was expected, found list"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_line_is_that_lines_problem(tmp_path, line, problem) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(TEXT.encode() + line + b"\n" + TEXT.encode())
    rows = list(read_source(str(path)))
    assert len(rows) == 7
    assert rows[3].data is None
    assert rows[3].where == f"{path}:4"
    assert re.search(problem, rows[3].problem)


def test_gzip_data_cut_off(tmp_path) -> None:
    path = tmp_path / "a.jsonl.gz"
    noise = random.Random(0)
    lines = [json.dumps({"prompt": noise.randbytes(40).hex()}) + "\n" for _ in range(5000)]
    whole = gzip.compress("".join(lines).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as error:
        list(read_source(str(path)))
    message = str(error.value)
    assert "the gzip data are cut off or damaged after line" in message
    number = int(message.removeprefix(f"{path}:").partition(":")[0])
    assert 1000 < number < 4000


def test_gzip_data_damaged(tmp_path) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = bytearray(gzip.compress(TEXT.encode()))
    whole[-6] ^= 1  # in the checksum
    path.write_bytes(bytes(whole))
    with pytest.raises(InputError, match=r"a\.jsonl\.gz:4: the gzip data are cut off or damaged after line 3"):
        list(read_source(str(path)))


def test_text_called_gz(tmp_path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_text(TEXT)
    with pytest.raises(InputError, match=r"is not gzip data; rename it to \.jsonl"):
        list(read_source(str(path)))


def test_broken_parquet(tmp_path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 this is nothing")
    with pytest.raises(InputError, match=r"a\.parquet: broken parquet after row 0"):
        list(read_source(str(path)))


def test_a_data_set_by_name(monkeypatch) -> None:
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return ROWS

    monkeypatch.setattr(sources, "import_module", lambda name: SimpleNamespace(load_dataset=load_dataset))
    rows = list(read_source("hub:owner/name:test"))
    assert [row.data for row in rows] == ROWS
    assert rows[0].where == "hub:owner/name:test:row 1"
    list(read_source("hub:owner/name"))
    assert asked == [("owner/name", "test"), ("owner/name", "train")]


def test_a_digest_is_of_the_content(monkeypatch, tmp_path) -> None:
    for name, text in (("a.jsonl", TEXT), ("b.jsonl", TEXT), ("c.jsonl", TEXT + TEXT)):
        (tmp_path / name).write_text(text)
    one, same, other = (source_digest(str(tmp_path / f"{name}.jsonl")) for name in "abc")
    assert one == same != other
    with pytest.raises(InputError, match=r"b\.jsonl\.gz: no such file"):
        source_digest(str(tmp_path / "b.jsonl.gz"))


def test_a_format_is_how_a_source_is_read(tmp_path) -> None:
    for name in ("a.jsonl", "a.jsonl.gz", "a.b.parquet", "a.txt"):
        (tmp_path / name).write_text(TEXT)
    found = [source_format(str(tmp_path / name)) for name in ("a.jsonl", "a.jsonl.gz", "a.b.parquet")]
    assert found == [".jsonl", ".jsonl.gz", ".parquet"]
    assert source_format("hub:owner/name.jsonl") == "hub:"
    with pytest.raises(InputError, match="unknown format"):
        source_format(str(tmp_path / "a.txt"))


def test_the_digest_of_a_data_set_by_name_is_of_its_files_and_its_split(monkeypatch, tmp_path) -> None:
    class Loaded(list):
        cache_files = ({"filename": str(tmp_path / "a.arrow")},)

    made = {"files": Loaded(), "memory": ROWS}
    monkeypatch.setattr(
        sources, "import_module", lambda _: SimpleNamespace(load_dataset=lambda name, split: made[name.split("/")[1]])
    )
    (tmp_path / "a.arrow").write_bytes(b"one")
    first = source_digest("hub:owner/files")
    assert source_digest("hub:owner/files:test") != first
    (tmp_path / "a.arrow").write_bytes(b"other")
    assert source_digest("hub:owner/files") != first
    held = source_digest("hub:owner/memory")
    assert source_digest("hub:owner/memory") == held
    made["memory"] = ROWS[:2]
    assert source_digest("hub:owner/memory") != held


def test_a_data_set_by_name_that_fails(monkeypatch) -> None:
    def load_dataset(name, split):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(sources, "import_module", lambda name: SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(InputError, match=r"hub:owner/name: cannot be loaded \(no route\); check the name"):
        next(read_source("hub:owner/name"))
    with pytest.raises(InputError, match="no name"):
        next(read_source("hub:"))


def test_a_data_set_by_name_without_the_extra(monkeypatch) -> None:
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(sources, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'nashtune\[hub\]'"):
        next(read_source("hub:owner/name"))


@pytest.mark.parametrize("name", ["train", "demo-train.jsonl"])
def test_shipped_data(tmp_path, monkeypatch, name) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo-train.jsonl").write_text(TEXT)
    monkeypatch.setattr(sources.resources, "files", lambda package: tmp_path)
    rows = list(read_source(f"demo:{name}"))
    assert [row.data for row in rows] == ROWS
    assert rows[0].where == f"demo:{name}:1"
    with pytest.raises(InputError, match=r"demo:trian: no such shipped data; did you mean 'train'\?"):
        next(read_source("demo:trian"))
