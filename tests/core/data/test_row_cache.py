"""Rows are tokenised once for each content and each way to read it, and a broken file is never read."""

from __future__ import annotations

import gc
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from nashtune.data import row_cache, split_reader
from nashtune.data.module import PreferenceData
from nashtune.errors import InputError

ROW = {"prompt": "p", "chosen": "a", "rejected": "bb", "p_chosen": 0.75}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sources that were read and tokenised."""
    seen: list[str] = []
    tokenise = split_reader.tokenise
    monkeypatch.setattr(
        split_reader,
        "tokenise",
        lambda rows, found, *rest, **more: (seen.append(found.source), tokenise(rows, found, *rest, **more))[1],
    )
    return seen


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the user is told."""
    said: list[str] = []
    monkeypatch.setattr(row_cache, "note", said.append)
    return said


def start(source: str, tokenizer: Any, rows: Any = "pairs", **options: Any) -> PreferenceData:
    bound = {name: options.pop(name) for name in ("reads", "uses_margin", "context") if name in options}
    data = PreferenceData(source, **options)
    data.bind(tokenizer=tokenizer, rows=rows, uses_p_chosen=True, seed=0, **bound)
    data.setup("fit")
    return data


def content(data: PreferenceData) -> tuple[Any, ...]:
    return list(data.every_row("train").rows), data.reports["train"]


def file_of(cache: Path) -> Path:
    (path,) = (cache / "rows").glob("*.arrow")
    return path


def test_the_second_start_reads_no_row_and_gives_the_same(pairs, tokenizer, passes, lines) -> None:
    path = pairs(300)
    first, second = start(path, tokenizer), start(path, tokenizer)
    assert passes == [path]
    assert content(second) == content(first)
    assert second.where("train", 299) == f"{path}:300"
    assert second.fingerprint("train") == first.fingerprint("train")
    assert lines == []


def test_the_same_content_under_another_name_is_read_once(pairs, tokenizer, passes, tmp_path) -> None:
    path = pairs(3)
    start(path, tokenizer)
    copy = str(tmp_path / "copy.jsonl")
    shutil.copy(path, copy)
    data = start(copy, tokenizer)
    assert passes == [path]
    assert data.where("train", 1) == f"{copy}:2"
    assert data.reports["train"].source == copy


def test_a_file_is_not_read_as_what_it_is_not(write, tokenizer, passes, tmp_path) -> None:
    """The rows of a parquet file are kept, and its copy is still no JSON lines."""
    table = pa.table({name: [value] for name, value in ROW.items()})
    parquet.write_table(table, tmp_path / "a.parquet")
    start(str(tmp_path / "a.parquet"), tokenizer)
    copies = [str(shutil.copy(tmp_path / "a.parquet", tmp_path / name)) for name in ("b.jsonl", "b.jsonl.gz")]
    for copy, said in zip(copies, ("UTF-8|broken JSON", "is not gzip data"), strict=True):
        with pytest.raises(InputError, match=said):
            start(copy, tokenizer)
    start(str(shutil.copy(tmp_path / "a.parquet", tmp_path / "b.parquet")), tokenizer)
    assert len(passes) == 3


def test_a_split_has_its_own_name_in_the_report(pairs, tokenizer, passes) -> None:
    path = pairs(3)
    data = start(path, tokenizer, validation=path)
    assert passes == [path]
    assert [report.split for report in data.reports.values()] == ["train", "validation"]


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 99},
        {"max_prompt_length": 50},
        {"overflow": "drop"},
        {"limit": 2},
        {"template": "plain"},
        {"labels": "soft"},
        {"ranked_pairs": "all_pairs"},
        {"rows": "examples"},
        {"rows": "comparisons"},
        {"rows": "ranked", "reads": "scores"},
        {"reads": "scores"},
        {"uses_margin": True},
        {"context": 200},
    ],
)
def test_everything_that_changes_the_rows_makes_them_anew(write, tokenizer, passes, change) -> None:
    path = write([{**ROW, "prompt": f"p{i}"} for i in range(4)])
    start(path, tokenizer)
    start(path, tokenizer, **change)
    start(path, tokenizer, **change)
    assert passes == [path, path]


def test_changed_rows_are_read_again(pairs, tokenizer, passes) -> None:
    path = pairs(3)
    one = start(path, tokenizer).fingerprint("train")
    Path(path).write_text(Path(path).read_text().replace("good", "fine"))
    assert start(path, tokenizer).fingerprint("train") != one
    assert len(passes) == 2


def test_the_tokenizer_counts_as_it_is_now(pairs, tokenizer, passes) -> None:
    path = pairs(3)
    start(path, tokenizer)
    tokenizer.chat_template += "{# another #}"
    start(path, tokenizer)
    tokenizer.add_tokens(["good"])
    assert start(path, tokenizer).every_row("train").rows[0].completions[0][0] == tokenizer.convert_tokens_to_ids(
        "good"
    )
    assert len(passes) == 3


def test_a_template_that_writes_the_date_is_another_one_tomorrow(tokenizer, monkeypatch) -> None:
    class Day:
        today = 0

        @classmethod
        def isoformat(cls) -> str:
            return str(cls.today)

    monkeypatch.setattr(row_cache, "date", type("Date", (), {"today": lambda: Day}))
    plain = row_cache.tokenizer_digest(tokenizer)
    Day.today = 1
    assert row_cache.tokenizer_digest(tokenizer) == plain
    tokenizer.chat_template = "{{ strftime_now('%d') }}" + tokenizer.chat_template
    dated = row_cache.tokenizer_digest(tokenizer)
    Day.today = 2
    assert row_cache.tokenizer_digest(tokenizer) != dated


def test_how_the_last_call_padded_and_cut_does_not_count(pairs, tokenizer, passes) -> None:
    path = pairs(3)
    start(path, tokenizer)
    plain = row_cache.tokenizer_digest(tokenizer)
    tokenizer(["a", "bbbb"], padding=True, truncation=True, max_length=3)
    assert tokenizer.backend_tokenizer.padding and tokenizer.backend_tokenizer.truncation
    assert row_cache.tokenizer_digest(tokenizer) == plain
    start(path, tokenizer)
    assert len(passes) == 1


def test_the_code_counts(pairs, tokenizer, passes, monkeypatch) -> None:
    path = pairs(3)
    start(path, tokenizer)
    monkeypatch.setattr(row_cache, "_code", lambda: "another")
    start(path, tokenizer)
    assert len(passes) == 2


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "other"])
def test_a_broken_file_is_made_again_with_a_line(pairs, tokenizer, own_cache, passes, lines, harm) -> None:
    path = pairs(50)
    whole = content(start(path, tokenizer))
    file = file_of(own_cache)
    good = file.read_bytes()
    middle = len(good) // 2
    bad = {
        "cut": good[:middle],
        "flipped": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "empty": b"",
        "other": b"x" * len(good),
    }
    file.write_bytes(bad[harm])
    assert content(start(path, tokenizer)) == whole
    (line,) = lines
    assert line.startswith(f"{file} is broken (") and line.endswith("; the rows are tokenised again")
    assert file_of(own_cache).read_bytes() == good
    start(path, tokenizer)
    assert len(passes) == 2


def test_rows_that_are_refused_leave_nothing_behind(write, tokenizer, own_cache) -> None:
    path = write([ROW, {**ROW, "rejected": ""}])
    for _ in range(2):
        with pytest.raises(InputError, match=f"{path}:2: 'rejected' is empty"):
            start(path, tokenizer)
    assert [file.suffix for file in (own_cache / "rows").iterdir()] == [".lock"]


def test_several_runs_at_once_make_the_rows_once(pairs, tokenizer, passes, own_cache) -> None:
    path = pairs(200)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: start(path, tokenizer).fingerprint("train"), range(4)))
    assert len(set(found)) == 1
    assert passes == [path]
    file_of(own_cache)


def test_a_cache_that_cannot_be_written_to(pairs, tokenizer, tmp_path, monkeypatch, passes, lines) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASHTUNE_CACHE", str(tmp_path / "file"))
    path = pairs(3)
    data = start(path, tokenizer)
    assert len(data.every_row("train").rows) == 3
    start(path, tokenizer)
    assert len(passes) == 2
    assert lines[0].startswith(f"tokenised rows cannot be kept in {tmp_path / 'file' / 'rows'} (")
    assert "set NASHTUNE_CACHE" in lines[0]


def test_a_source_that_fails_in_the_middle_is_not_read_again(pairs, tokenizer, own_cache, monkeypatch, lines) -> None:
    """It is no matter of the cache: the source may be large, and its error must be seen."""
    calls = []

    def fail(rows: Any, *rest: Any, **more: Any) -> Any:
        calls.append(next(iter(rows)))
        raise ConnectionError("gone")

    monkeypatch.setattr(split_reader, "tokenise", fail)
    path = pairs(3)
    with pytest.raises(InputError, match=rf"{path}: cannot be read to its end \(gone\)"):
        start(path, tokenizer)
    assert len(calls) == 1 and lines == []
    assert [file.suffix for file in (own_cache / "rows").iterdir()] == [".lock"]


def test_a_disk_that_fills_up_while_rows_are_written(pairs, tokenizer, own_cache, monkeypatch, passes, lines) -> None:
    add = row_cache.RowWriter.add

    def full(self: Any, rows: Any) -> None:
        if not lines:
            raise OSError(28, "No space left on device")
        add(self, rows)

    monkeypatch.setattr(row_cache.RowWriter, "add", full)
    data = start(pairs(3), tokenizer)
    assert len(data.every_row("train").rows) == 3 and len(passes) == 2
    assert "No space left on device" in lines[0]


def test_files_that_no_run_has_used_for_long_are_removed(write, tokenizer, own_cache, passes) -> None:
    paths = [write([{**ROW, "prompt": name}], f"{name}.jsonl") for name in ("old", "used", "new")]
    for path in paths[:2]:
        start(path, tokenizer)
    folder = own_cache / "rows"
    (folder / ".a.new.1-00.partial").write_text("of a run that was killed")
    long_ago = time.time() - 61 * 24 * 3600
    for file in folder.iterdir():
        os.utime(file, (long_ago, long_ago))
    start(paths[1], tokenizer)  # nothing is written, so nothing is removed
    assert len(list(folder.glob("*.arrow"))) == 2
    start(paths[2], tokenizer)
    assert sorted(file.suffix for file in folder.iterdir()) == [".arrow", ".arrow", ".lock", ".lock"]
    start(paths[1], tokenizer)
    assert len(passes) == 3
    start(paths[0], tokenizer)
    assert len(passes) == 4


def test_rows_in_a_temporary_folder_go_with_the_last_reference(pairs, tokenizer, tmp_path, monkeypatch, lines) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASHTUNE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(row_cache, "mkdtemp", lambda prefix: str(tmp_path / "temporary"))
    data = start(pairs(3), tokenizer)
    assert list((tmp_path / "temporary").glob("*.arrow"))
    del data
    gc.collect()
    assert not (tmp_path / "temporary").exists()
    monkeypatch.setattr(row_cache, "mkdtemp", lambda prefix: str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written anywhere .* set NASHTUNE_CACHE"):
        start(pairs(3), tokenizer)


def test_the_stages_of_a_bad_row_keep_their_order(write, tokenizer) -> None:
    """What cannot be read comes before what does not fit the template, and this before what is too long."""
    long, chat = {**ROW, "prompt": "p" * 200}, {**ROW, "prompt": [{"role": "user", "content": "p"}]}
    broken = "{"

    def said(*rows: Any) -> str:
        with pytest.raises(InputError) as error:
            start(write([*rows, *[ROW] * 300, *rows]), tokenizer, template="plain", max_length=50)
        return str(error.value)

    assert "broken JSON" in said(long, chat, broken) and "and 1 more bad row:" in said(long, chat, broken)
    assert "the prompt is a list of messages" in said(long, chat)
    assert "are more than data.max_length 50" in said(long)


def test_many_bad_rows_are_counted_and_five_named(write, tokenizer) -> None:
    path = write([{**ROW, "prompt": "p" * 200}] * 400)
    with pytest.raises(InputError) as error:
        start(path, tokenizer, max_length=50)
    first, more, *named = str(error.value).splitlines()
    assert first.startswith(f"{path}:1: ")
    assert more == "and 399 more bad rows, the first 4 of them:"
    assert [line.split(": ")[0].strip() for line in named] == [f"{path}:{i}" for i in (2, 3, 4, 5)]


def test_the_report_comes_back_whole(write, tokenizer) -> None:
    rows = [{**ROW, "id": i, "prompt": "p" * i} for i in range(1, 40)] + [{**ROW, "prompt": "p", "id": 0}]
    path = write([*rows, *rows])
    first, second = (start(path, tokenizer, max_length=40, overflow="truncate_prompt").reports["train"] for _ in "ab")
    assert second == first
    assert json.dumps(second.as_dict()) == json.dumps(first.as_dict())
    assert first.duplicates == 41
