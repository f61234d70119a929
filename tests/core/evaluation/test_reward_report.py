from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from nashtune.evaluation.reward_report import comparison_report, quantile_buckets, reward_report
from nashtune.evaluation.reward_scores import HeldOutScores, ordered_pairs
from nashtune.evaluation.reward_table import reward_table


def held(lists: list[list[list[float]]], lengths: list[list[int]], p: float = math.nan) -> HeldOutScores:
    """Scores of each answer of each list, best first, by each member."""
    rows = [i for i, one in enumerate(lists) for _ in one]
    return HeldOutScores(
        row=torch.tensor(rows),
        place=torch.tensor([k for one in lists for k in range(len(one))]),
        length=torch.tensor([n for one in lengths for n in one]),
        p_chosen=torch.full((len(rows),), p, dtype=torch.float64),
        scores=torch.tensor([answer for one in lists for answer in one], dtype=torch.float64),
    )


# Gaps of the two members: (1, 2), (-0.5, 0.3), (0.4, -0.4), (2, 3); means 1.5, -0.1, 0 and 2.5.
FOUR = held(
    [[[1, 2], [0, 0]], [[0, 0.3], [0.5, 0]], [[0.4, 0], [0, 0.4]], [[2, 4], [0, 1]]], [[10, 6], [5, 8], [7, 7], [4, 9]]
)
PROMPTS = ["a", "a", "b", "c"]


def test_four_pairs_by_hand() -> None:
    found = reward_report(FOUR, PROMPTS, seed=0)
    assert [found[name] for name in ("lists", "pairs", "prompts", "members")] == [4, 4, 3, 2]
    assert found["accuracy"] == {"mean": 0.625, "se": pytest.approx((0.21875 * 3 / 2) ** 0.5 / 4), "pairs": 4}
    assert found["members_accuracy"] == {"min": 0.75, "mean": 0.75, "max": 0.75, "each": [0.75, 0.75]}
    longer = found["longer_is_better"]
    assert longer["mean"] == 0.375, "right, wrong, a tie, wrong"
    assert longer["above"]["mean"] == 0.25 and longer["above"]["low"] < 0.25 < longer["above"]["high"]
    by = {name: (one["mean"], one["pairs"]) for name, one in found["by_longer"].items()}
    assert by == {"longer": (1.0, 1), "shorter": (0.5, 2), "equal": (0.5, 1)}
    assert [(one["from"], one["to"], one["mean"]) for one in found["by_length"]][-1] == (1.0, 4.0, 1.0)
    gaps = [(one["mean"], one["pairs"]) for one in found["by_margin"]]
    assert gaps == [(0.5, 1), (0.0, 1), (1.0, 1), (1.0, 1)]
    assert found["calibration"]["log_loss"] == pytest.approx(
        sum(math.log1p(math.exp(-gap)) for gap in (1.5, -0.1, 0.0, 2.5)) / 4
    )
    assert found["agreement"]["decisions"] == 0.5
    # variances of the members 0.5, 0.32, 0.32, 0.5; of the means 4.7075/4
    assert found["agreement"]["spread"] == pytest.approx(math.sqrt(0.41 / 1.176875))
    assert "top_1" not in found


def test_one_member_is_the_mean_and_agrees_with_nobody() -> None:
    one = held([[[1.0], [0.0]], [[0.0], [1.0]]], [[3, 2], [3, 2]])
    found = reward_report(one, ["a", "b"], seed=0)
    assert "agreement" not in found
    assert found["members_accuracy"] == {"min": 0.5, "mean": 0.5, "max": 0.5, "each": [0.5]}
    assert found["longer_is_better"]["mean"] == 1.0 and found["longer_is_better"]["above"]["mean"] == -0.5


def test_a_list_counts_once_however_many_pairs_it_has() -> None:
    # three answers with one of three pairs in the wrong order; two answers, right
    lists = held([[[2.0], [0.0], [1.0]], [[1.0], [0.0]]], [[9, 5, 7], [2, 4]])
    pairs = ordered_pairs(lists)
    found = {(row, gap) for row, gap in zip(pairs.row.tolist(), pairs.gap[:, 0].tolist(), strict=True)}
    assert found == {(0, 2.0), (0, 1.0), (0, -1.0), (1, 1.0)}
    assert float(pairs.weight.sum()) == pytest.approx(2.0)
    report = reward_report(lists, ["a", "b"], seed=0)
    assert report["accuracy"]["mean"] == pytest.approx((2 / 3 + 1) / 2)
    assert report["longer_is_better"]["mean"] == pytest.approx((2 / 3 + 0) / 2)
    assert report["top_1"] == {"mean": 1.0, "se": 0.0, "lists": 2}
    tied = held([[[1.0], [1.0], [0.0]], [[0.0], [1.0]]], [[1, 1, 1], [1, 1]])
    assert reward_report(tied, ["a", "b"], seed=0)["top_1"]["mean"] == 0.25


def test_answers_of_the_same_rank_are_no_pair() -> None:
    """One best and three wrong answers; two best ones and two others."""
    lists = held([[[3.0], [0.0], [2.0], [1.0]], [[0.0], [2.0], [1.0], [5.0]]], [[1, 9, 2, 3], [4, 3, 2, 1]])
    strict = reward_report(lists, ["a", "b"], seed=0)
    tied = HeldOutScores(**{**vars(lists), "level": torch.tensor([0, 1, 1, 1, 0, 0, 1, 1])})
    pairs = ordered_pairs(tied)
    assert sorted(pairs.gap[:, 0].tolist()) == [-5.0, -3.0, -1.0, 1.0, 1.0, 2.0, 3.0]
    assert float(pairs.weight.sum()) == pytest.approx(2.0)
    found = reward_report(tied, ["a", "b"], seed=0)
    assert (found["pairs"], found["accuracy"]["mean"]) == (7, pytest.approx((1 + 1 / 4) / 2))
    assert found["longer_is_better"]["mean"] == pytest.approx((0 + 1) / 2)
    assert found["top_1"]["mean"] == 0.5 and strict["pairs"] == 12
    best = HeldOutScores(**{**vars(tied), "scores": tied.scores.index_fill(0, torch.tensor([4, 5]), 5.0)})
    assert reward_report(best, ["a", "b"], seed=0)["top_1"]["mean"] == pytest.approx((1 + 2 / 3) / 2)


def test_soft_labels_say_how_often_an_order_is_right() -> None:
    """Scores and length prefer the chosen answer, which is the better one with probability 1/4."""
    soft = held([[[1.0], [0.0]]] * 3, [[2, 1]] * 3, p=0.25)
    found = reward_report(soft, ["a", "b", "c"], seed=0)
    assert (found["accuracy"]["mean"], found["longer_is_better"]["mean"]) == (0.25, 0.25)
    assert found["longer_is_better"]["above"]["mean"] == 0.0
    assert {name: one["pairs"] for name, one in found["by_longer"].items()} == {"longer": 0, "shorter": 3, "equal": 0}
    other = held([[[0.0], [1.0]]] * 3, [[1, 2]] * 3, p=0.75)  # the same with the sides changed
    assert reward_report(other, ["a", "b", "c"], seed=0) == found


def test_soft_labels_enter_the_log_loss() -> None:
    soft = held([[[1.0], [0.0]]] * 3, [[1, 1]] * 3, p=0.25)
    found = reward_report(soft, ["a", "b", "c"], seed=0)["calibration"]["log_loss"]
    assert found == pytest.approx(0.25 * math.log1p(math.exp(-1)) + 0.75 * math.log1p(math.exp(1)))


def test_a_constant_for_each_prompt_and_member_changes_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    offset = torch.randn(4, 2, generator=draw, dtype=torch.float64).repeat_interleave(2, dim=0)
    moved = HeldOutScores(**{**vars(FOUR), "scores": FOUR.scores + offset})
    ours, theirs = (reward_report(one, PROMPTS, seed=3) for one in (FOUR, moved))
    assert ours["members_accuracy"] == theirs["members_accuracy"]
    assert ours["agreement"] == pytest.approx(theirs["agreement"])


def test_buckets_hold_every_value_once() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    found = quantile_buckets(values, 2)
    assert [(edges["from"], edges["to"], inside.tolist()) for edges, inside in found] == [
        (1.0, 2.5, [True, True, False, False]),
        (2.5, 4.0, [False, False, True, True]),
    ]
    assert [inside.sum() for _, inside in quantile_buckets(np.zeros(5), 4)] == [5]
    many = np.random.default_rng(0).integers(0, 5, 200).astype(float)
    assert sum(int(inside.sum()) for _, inside in quantile_buckets(many, 4)) == 200


# (a, b) with logits 1.3 and 0.4 of the two labels, a better; (b, a) with 0.8 and 0.5. A second pair, right both times.
ODDS = [0.9, -0.3, 2.0, 1.0]


def compared(odds: list[float]) -> HeldOutScores:
    n = len(odds)
    return HeldOutScores(
        row=torch.arange(n) // 2,
        place=torch.arange(n) % 2,
        length=torch.ones(n, dtype=torch.long),
        p_chosen=torch.full((n,), math.nan, dtype=torch.float64),
        scores=torch.tensor(odds, dtype=torch.float64).unsqueeze(-1),
        comparisons=True,
    )


def test_both_orders_are_averaged_and_a_change_of_verdict_is_counted() -> None:
    found = comparison_report(compared(ODDS), ["a", "a", "b", "b"])
    assert found["accuracy"]["mean"] == 1.0
    assert (found["accuracy_first"]["mean"], found["accuracy_second"]["mean"]) == (1.0, 0.5)
    assert found["position_bias"]["flips"]["mean"] == 0.5
    p0, p1 = 0.7109495026250039, 0.425557483188341
    alone = comparison_report(compared(ODDS[:2]), ["a", "a"])
    assert alone["position_bias"]["first"]["mean"] == pytest.approx((p0 + 1 - p1) / 2)
    assert alone["calibration"]["log_loss"] == pytest.approx(-math.log(0.5682534929))
    assert alone["calibration"]["bins"][0]["claimed"] == pytest.approx(0.5682534929)


def test_log_odds_without_limits_stay_finite() -> None:
    found = comparison_report(compared([1000.0, 900.0, -1000.0, 999.0, 800.0, -801.0]), list("aabbcc"))
    assert found["accuracy"]["mean"] == pytest.approx(1 / 3), "the sum of the log-odds decides: 1900, -1 and -1"
    # sure, right; then the means of two certain verdicts that contradict each other, at log-odds of nearly 0
    assert found["calibration"]["log_loss"] == pytest.approx(2 * math.log(2) / 3)


def test_comparisons_with_soft_labels() -> None:
    soft = HeldOutScores(**{**vars(compared(ODDS)), "p_chosen": torch.full((4,), 0.25, dtype=torch.float64)})
    found = comparison_report(soft, ["a", "a", "b", "b"])
    assert found["accuracy"]["mean"] == 0.25
    # the better one is the other, which comes first where this one comes second: verdicts wrong, right; wrong, wrong
    assert (found["accuracy_first"]["mean"], found["accuracy_second"]["mean"]) == (0.5, 0.25)
    hard = comparison_report(compared(ODDS), ["a", "a", "b", "b"])
    assert found["position_bias"]["first"]["mean"] == pytest.approx(hard["position_bias"]["first"]["mean"])


def test_a_pair_that_was_seen_in_one_order_is_left_out() -> None:
    assert comparison_report(compared(ODDS[:3]), ["a", "a", "b", "b"])["pairs"] == 1


@pytest.mark.parametrize("kind", ["pairs", "lists", "comparisons"])
def test_the_table_fits_a_terminal_and_the_report_is_json(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    if kind == "comparisons":
        report = comparison_report(compared(torch.randn(40, generator=draw).tolist()), [str(i) for i in range(40)])
    else:
        size = 3 if kind == "lists" else 2
        scores = (10 * torch.randn(30, size, 10, generator=draw)).tolist()
        lengths = torch.randint(1, 900, (30, size), generator=draw).tolist()
        report = reward_report(held(scores, lengths), [str(i // 2) for i in range(30)], seed=0)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    stream = io.StringIO()
    Console(file=stream, width=80).print(reward_table(report, title="held-out rows"))
    text = stream.getvalue()
    assert f"{report['accuracy']['mean']:.3f} ±" in text and "ECE" in text
    assert kind == "comparisons" or text.count(" to below ") == 6
    assert "…" not in text and len([line for line in text.splitlines() if "│" in line]) < 25
