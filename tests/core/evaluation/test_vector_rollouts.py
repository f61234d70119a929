from __future__ import annotations

import pytest

from game_numbers import TOKENS
from nashtune.errors import InputError
from nashtune.evaluation.vectors import compare, evaluate, run_case
from nashtune.spec.resolve import resolve


def test_a_vector_has_one_list_for_each_completion():
    found = run_case(resolve("nash_md_pg"), {"params": {"loss": {"tau": 0.1}}, "inputs": TOKENS})
    assert set(found) == {"loss", "grad_policy"}
    assert [len(tokens) for tokens in found["grad_policy"]] == [3, 2, 4]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"polcy": [[1.0]]}, "did you mean 'policy'"),
        ({"policy": [-1.0, -2.0]}, "one list of per-token numbers for each completion"),
        ({"policy": [[-1.0], []]}, "one list of per-token numbers for each completion"),
        ({"policy": [["x"], [1.0]]}, "'x' is not a finite number"),
        ({"ref": [[-1.0], [-1.0]]}, r"ref: completions of \[1, 1\] tokens, but policy has \[3, 2, 4\]"),
        ({"score": [0.5]}, "score: 1 numbers, but policy has 3 completions"),
        ({"score": [0.5, 0.5, 1.5]}, r"is in \[0, 1\]"),
        ({"score": 0.5}, "expected a list"),
    ],
)
def test_wrong_vectors_are_refused_by_name(change, match):
    with pytest.raises(InputError, match=match):
        evaluate(resolve("nash_md_pg"), {"inputs": {**TOKENS, **change}}, "F: cases[0]")


@pytest.mark.parametrize("missing", ["policy", "ref", "score"])
def test_missing_vectors_are_named(missing):
    inputs = {name: value for name, value in TOKENS.items() if name != missing}
    with pytest.raises(InputError, match=missing):
        evaluate(resolve("nash_md_pg"), {"inputs": inputs}, "F: cases[0]")


def test_nested_lists_are_compared_number_by_number():
    given = {"inputs": TOKENS, "params": {"loss": {"tau": 0.0}}}
    grad = [[-0.3] * 3, [0.15] * 2, [-0.1, -0.1, -0.1, -0.1 + 1e-6]]
    case = {**given, "expected": {"grad_policy": grad}}
    difference = compare(evaluate(resolve("nash_md_pg"), case), case)
    assert difference is not None and difference.at.startswith("grad_policy[8]")
    assert difference.size == pytest.approx(1e-6)
