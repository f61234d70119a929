from __future__ import annotations

import pickle
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nashtune.data import row_file
from nashtune.data.row_file import RowWriter, TokenRows
from nashtune.data.tokenise import TokenRow, fingerprint

PAIR = TokenRow(
    prompt_ids=(1, 2, 3),
    completions=((4,), (5, 6)),
    p_chosen=0.1,
    margin=1 / 3,
    where="a.jsonl:7",
    prompt_text="ä \ud83d",  # half of a surrogate pair, as JSON may hold it
)
EXAMPLE = TokenRow(prompt_ids=(1,), completions=((2_000_000_000,),), desirable=False, where="a.jsonl:8", prompt_text="")
LIST = TokenRow(
    prompt_ids=(), completions=((1, 2), (3,), (4,)), levels=(0, 1, 1), where="a.jsonl:row 9", prompt_text="p"
)


def random_rows(n: int) -> list[TokenRow]:
    random = np.random.default_rng(0)

    def ids() -> tuple[int, ...]:
        return tuple(random.integers(0, 50_000, random.integers(1, 9)).tolist())

    return [
        TokenRow(prompt_ids=ids(), completions=(ids(), ids()), where=f"a.jsonl:{i}", prompt_text=f"p{i}")
        for i in range(n)
    ]


def written(path: Path, rows: list[TokenRow]) -> TokenRows:
    with RowWriter(path, "a.jsonl") as writer:
        writer.add(rows)
        writer.close_with({"n": len(rows)})
    return TokenRows(path, "a.jsonl")


def test_every_field_comes_back_as_it_was(tmp_path) -> None:
    given = [PAIR, EXAMPLE, LIST, replace(PAIR, p_chosen=0.0, margin=0.0), replace(EXAMPLE, desirable=True)]
    rows = written(tmp_path / "rows", given)
    assert list(rows) == given
    assert rows.facts == {"n": 5}
    assert all(type(value) is int for row in rows for ids in (row.prompt_ids, *row.completions) for value in ids)


def test_it_is_a_sequence(tmp_path, monkeypatch) -> None:
    """Over many record batches, of rows and of tokens."""
    monkeypatch.setattr(row_file, "ROWS", 7)
    monkeypatch.setattr(row_file, "TOKENS", 60)
    monkeypatch.setattr(row_file, "RELEASE", 3)
    given = random_rows(50)
    rows = written(tmp_path / "rows", given)
    assert len(rows) == 50
    assert [rows[i] for i in (49, 0, 13, 13, -1, -50)] == [given[i] for i in (49, 0, 13, 13, -1, -50)]
    assert rows[3:20:5] == given[3:20:5]
    assert fingerprint(rows) == fingerprint(given)
    for wrong in (50, -51):
        with pytest.raises(IndexError, match=f"row {wrong} of 50"):
            rows[wrong]


def test_the_source_may_have_another_name_now(tmp_path) -> None:
    written(tmp_path / "rows", [PAIR, LIST])
    assert [row.where for row in TokenRows(tmp_path / "rows", "/b/c.jsonl")] == ["/b/c.jsonl:7", "/b/c.jsonl:row 9"]


def test_another_process_opens_the_file_itself(tmp_path) -> None:
    rows = written(tmp_path / "rows", [PAIR, LIST])
    assert list(pickle.loads(pickle.dumps(rows))) == [PAIR, LIST]


def test_writing_keeps_a_bounded_number_of_rows(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(row_file, "ROWS", 10)
    alive: weakref.WeakSet[TokenRow] = weakref.WeakSet()
    most = 0
    with RowWriter(tmp_path / "rows", "a.jsonl") as writer:
        for row in map(replace, random_rows(95)):
            alive.add(row)
            writer.add([row])
            most = max(most, len(alive))
        writer.close_with({})
    assert most == 9  # the tenth is written at once


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", b"something else"])
def test_what_is_no_such_file(tmp_path, content) -> None:
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(ValueError):
        TokenRows(tmp_path / "rows", "a.jsonl")
