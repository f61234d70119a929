"""Typed records in the journal."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nashtune.interfaces.oracle import Judgement, Scored
from nashtune.interfaces.pairing import Paired
from nashtune.interfaces.sampler import Completion
from nashtune.journal.records import (
    completions_name,
    judgements_name,
    read_completions,
    read_judgements,
    read_pairs,
    read_scores,
    scores_name,
    write_completions,
    write_judgements,
    write_pairs,
    write_scores,
)
from nashtune.journal.store import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def completion(prompt: int, k: int, tokens: int, *, top_p: bool = False) -> Completion:
    return Completion(
        prompt=prompt,
        k=k,
        token_ids=tuple(range(100, 100 + tokens)),
        token_logp=tuple(-math.sqrt(2.0 + i) for i in range(tokens)),
        finish="stop" if k else "length",
        kept_mass=tuple(1 / (3 + i) for i in range(tokens)) if top_p else (),
        version="main@1",
    )


@pytest.mark.parametrize("top_p", [False, True])
def test_completions(journal: Journal, top_p: bool) -> None:
    rows = [completion(prompt, k, 1 + prompt + k, top_p=top_p) for prompt in (0, 7) for k in range(2)]
    texts = ["a", "", "line\nbreak", "né"]
    write_completions(journal, 1, "policy", 3, rows, texts)
    assert read_completions(journal, 1, "policy", 3) == (rows, texts)
    assert journal.names(1) == [completions_name("policy", 3)] == ["completions-policy-0003"]
    assert not journal.has(1, completions_name("opponent", 3))


def test_judgements_keep_what_has_no_answer(journal: Journal) -> None:
    rows = [Judgement(prompt=4, first=0, second=1, p=1 / 3), Judgement(prompt=4, first=2, second=3, p=math.nan)]
    write_judgements(journal, 2, 0, rows)
    found = read_judgements(journal, 2, 0)
    assert found[0] == rows[0] and math.isnan(found[1].p) and found[1].second == 3
    assert journal.has(2, judgements_name(0))


def test_scores_with_and_without_a_variance(journal: Journal) -> None:
    rows = [
        Scored(prompt=0, role="policy", k=0, mean=0.1),
        Scored(prompt=0, role="opponent", k=1, mean=-2.5, variance=0.25, members=(-3.0, -2.0)),
        Scored(prompt=1, role="policy", k=0, mean=math.inf, variance=0.0),
    ]
    write_scores(journal, 1, 5, rows)
    assert read_scores(journal, 1, 5) == rows
    assert journal.has(1, scores_name(5))


def test_pairs_and_why_others_were_not_made(journal: Journal) -> None:
    rows = [
        (3, Paired(chosen=1, rejected=0, p_chosen=0.7)),
        (9, Paired(chosen=0, rejected=4, p_chosen=0.6, win_rate_chosen=2 / 3, win_rate_rejected=0.1)),
    ]
    dropped = {"tie": 2, "inconsistent": 1}
    write_pairs(journal, 1, rows, dropped)
    assert read_pairs(journal, 1) == (rows, dropped)
    assert journal.names(1) == ["dropped", "pairs"]  # pairs last: where they are finished, both are


def test_a_round_without_pairs(journal: Journal) -> None:
    write_pairs(journal, 1, [], {})
    write_completions(journal, 1, "policy", 0, [], [])
    assert read_pairs(journal, 1) == ([], {}) and read_completions(journal, 1, "policy", 0) == ([], [])


def test_types_do_not_depend_on_the_rows(journal: Journal) -> None:
    """Parts of one table can be read together."""
    write_completions(journal, 1, "policy", 0, [], [])
    write_completions(journal, 1, "policy", 1, [completion(0, 0, 2, top_p=True)], ["a"])
    write_pairs(journal, 1, [], {})
    write_pairs(journal, 2, [(0, Paired(chosen=0, rejected=1, p_chosen=1.0, win_rate_chosen=0.5))], {"tie": 1})
    folder = journal.folder
    for one, two in (
        ("round-001/completions-policy-0000", "round-001/completions-policy-0001"),
        ("round-001/pairs", "round-002/pairs"),
        ("round-001/dropped", "round-002/dropped"),
    ):
        assert pq.read_schema(folder / f"{one}.parquet").equals(pq.read_schema(folder / f"{two}.parquet"))
