"""What values the columns of a journal's tables can have."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nashtune.journal.records import TYPES
from nashtune.journal.rules import RULES, broken


def test_every_column_has_a_rule() -> None:
    assert RULES.keys() == TYPES.keys()


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("prompt", [0, 2**31 - 1], [-1, None]),
        ("token_ids", [[], [0, 5]], [None, [None], [-1]]),
        ("token_logp", [[], [-1.5, 1e-6], [-math.inf]], [[math.nan], [0.5], [None], None]),
        ("kept_mass", [[], [1.0001]], [[1.1], [-0.5], [math.nan]]),
        ("finish", ["stop", "length"], ["", "eos", None]),
        ("version", ["", "main@1"], [None]),
        ("p", [0.0, 1.0, math.nan], [-0.5, 1.5, None]),
        ("p_chosen", [0.0, 1.0], [-0.5, 7.0, math.nan, None]),
        ("win_rate_chosen", [None, 0.5], [1.5, math.nan]),
        ("role", ["policy", "opponent"], ["judge", None]),
        ("mean", [-3.0], [math.nan, None]),
        ("variance", [None, 0.0], [-1.0, math.nan]),
        ("members", [[], [0.5]], [[math.nan], [None], None]),
        ("count", [0], [-1, None]),
    ],
)
def test_a_value_that_cannot_be_is_found(column: str, good: list[Any], bad: list[Any]) -> None:
    assert broken({column: good}) is None
    for value in bad:
        assert f"row 1 has {column} {value}, and it must be" in str(broken({column: [good[0], value]}))


def test_rows_that_do_not_fit_together_are_found() -> None:
    ids = {"token_ids": [[1], [1, 2]]}
    assert broken({**ids, "token_logp": [[-1.0], []], "kept_mass": [[], []]}) is None
    assert "row 1 has 1 numbers in kept_mass for 2" in str(broken({**ids, "kept_mass": [[], [0.5]]}))
    assert broken({"prompt": [0, 0], "k": [0, 1]}, once=("prompt", "k")) is None
    assert broken({"prompt": [0, 0], "k": [1, 1]}, once=("prompt", "k")) == "prompt 0, k 1 is there twice"
