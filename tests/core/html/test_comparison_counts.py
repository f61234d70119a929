from __future__ import annotations

from collections import Counter
from typing import Any

from nashtune.html.comparison_counts import cut_shares, cut_warning, merged, outcome_table, outcomes


def verdict(prompt: int, order: str, p: float | None, first: str = "a", second: str = "b") -> dict[str, Any]:
    return {"first": first, "second": second, "seed": 0, "prompt": prompt, "order": order, "p": p}


VERDICTS = [
    *(verdict(0, "given", 0.9), verdict(0, "swapped", 0.8)),
    *(verdict(1, "given", 0.9), verdict(1, "swapped", 0.4)),  # a win whose winner changed with the order
    *(verdict(2, "given", 0.9), verdict(2, "swapped", 0.1)),  # a tie, likewise
    *(verdict(3, "given", 0.1), verdict(3, "swapped", 0.5)),
    verdict(4, "equal", 0.5),
    *(verdict(5, "given", None), verdict(5, "swapped", 0.5)),
]


def test_verdicts_are_counted():
    counted = Counter(wins=2, ties=2, losses=1, equal=1, changed=2, unanswered=1)
    assert outcomes(VERDICTS) == {("a", "b"): counted}


def test_the_better_policy_comes_first():
    table = outcome_table(VERDICTS, ["b", "a"])
    assert table.rows == [["b over a", "1", "2", "2", "1", "2", "1"]]


def test_many_answers_cut_at_the_limit_are_warned_of():
    shares = cut_shares(
        [{"policy": name, "finished": i >= cut} for name, cut in (("a", 2), ("b", 3)) for i in range(10)]
    )
    assert shares == {"a": 0.2, "b": 0.3}
    (warning,) = cut_warning(shares)
    assert warning.startswith("Answers cut at the token limit: b 30 %.") and not cut_warning({"a": 0.2})


def test_remarks_that_differ_in_a_name_are_one():
    remarks = ["x is not for dpo: it has none", "dpo has spent 3 of 4 steps", "x is not for ipo: it has none", "other"]
    assert merged(remarks, ["dpo", "ipo"]) == [
        "x is not for dpo: it has none (likewise ipo)",
        "dpo has spent 3 of 4 steps",
        "other",
    ]
    two = "dpo was trained on it, ipo was not"
    assert merged([two, two], ["dpo", "ipo"]) == [two]
