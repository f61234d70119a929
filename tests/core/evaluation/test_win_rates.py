from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.special import stdtrit

from nashtune.errors import InputError
from nashtune.evaluation.win_rates import Comparison, win_rates


def strength(_: object, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
    """Bradley-Terry on answers that are numbers."""
    return np.array([1 / (1 + math.exp(float(b) - float(a))) for a, b in zip(first, second, strict=True)])


def test_win_rates_are_means_of_probabilities_and_antisymmetric() -> None:
    answers = {"start": ["0", "0"], "main@1": ["1", "2"], "main@2": ["0", "3"]}
    found = win_rates(["p", "q"], answers, strength, seed=0)

    def s(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    assert found.rates[1, 0] == pytest.approx((s(1) + s(2)) / 2, abs=1e-15)
    assert found.rates[2, 0] == pytest.approx((0.5 + s(3)) / 2, abs=1e-15)  # equal answers to the first prompt
    assert found.rates[2, 1] == pytest.approx((s(-1) + s(1)) / 2, abs=1e-15)
    np.testing.assert_allclose(found.rates + found.rates.T, 1, atol=1e-15)
    np.testing.assert_allclose(found.low + found.high.T, 1, atol=1e-15)
    assert np.all(found.low <= found.rates) and np.all(found.rates <= found.high)
    assert found.average[0] == pytest.approx((found.rates[0, 1] + found.rates[0, 2]) / 2, abs=1e-15)
    assert found.average.sum() == pytest.approx(1.5, abs=1e-15)
    assert (found.identical, found.disagreements, found.unanswered) == (1, 0, 0)


def test_comparisons_are_listed_by_pair_and_prompt() -> None:
    answers = {"start": ["0", "1"], "main@1": ["0", "0"]}
    found = win_rates(["p", "q"], answers, strength, seed=0)
    assert found.comparisons == (
        Comparison(0, "start", "main@1", 0.5),
        Comparison(1, "start", "main@1", pytest.approx(1 / (1 + math.exp(-1)), abs=1e-15)),
    )


def test_equal_answers_are_not_asked_and_each_other_pair_is_asked_in_both_orders() -> None:
    asked: list[tuple[object, str, str]] = []

    def judge(prompts: Sequence[object], first: Sequence[str], second: Sequence[str]) -> torch.Tensor:
        asked.extend(zip(prompts, first, second, strict=True))
        return torch.full((len(first),), 0.5, dtype=torch.float64)

    found = win_rates(["p", "q"], {"a": ["x", "y"], "b": ["x", "z"]}, judge, seed=0)
    assert asked == [("q", "y", "z"), ("q", "z", "y")]
    assert found.identical == 1 and found.rates[0, 1] == 0.5
    asked.clear()
    assert win_rates(["p"], {"a": ["x"], "b": ["x"]}, judge, seed=0).rates[0, 1] == 0.5
    assert not asked


def test_a_judge_that_only_looks_at_the_position_says_nothing() -> None:
    def first_wins(_: object, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
        return np.full(len(first), 0.9)

    found = win_rates(["p", "q", "r"], {"a": ["1", "2", "3"], "b": ["4", "5", "6"]}, first_wins, seed=0)
    assert found.rates[0, 1] == pytest.approx(0.5, abs=1e-15)
    assert found.disagreements == 3


def test_a_comparison_without_an_answer_is_in_no_mean() -> None:
    def judge(_: object, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
        p = strength(_, first, second)
        p[3] = np.nan  # the swapped order of the second prompt: one order alone would carry the judge's bias
        return p

    found = win_rates(["p", "q"], {"a": ["1", "9"], "b": ["0", "0"]}, judge, seed=0)
    assert found.unanswered == 1 and found.comparisons[1].p is None
    assert found.rates[0, 1] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-15)
    assert found.low[0, 1] == found.high[0, 1] == pytest.approx(found.rates[0, 1], abs=1e-15)

    nothing = win_rates(["p"], {"a": ["1"], "b": ["0"]}, lambda p, a, b: np.full(len(a), np.nan), seed=0)
    assert nothing.as_dict()["rates"] == [[0.5, None], [None, 0.5]]
    assert nothing.as_dict()["average"] == [None, None]


def test_the_interval_is_that_of_resampled_prompts_widened_to_students_t() -> None:
    random = np.random.default_rng(5)
    answers = {"a": [f"{v}" for v in random.normal(size=40)], "b": ["0"] * 40}
    found = win_rates(["p"] * 40, answers, strength, seed=11, resamples=500, level=0.9)
    p = np.array([one.p for one in found.comparisons])
    counts = np.random.default_rng(11).multinomial(40, [1 / 40] * 40, 500)
    means = [np.mean(np.repeat(p, row)) for row in counts]  # a resample written out
    low, high = np.quantile(means, [0.05, 0.95])
    wider = stdtrit(39, 0.95) * np.std(means) * np.sqrt(40 / 39) / ((high - low) / 2)
    expected = p.mean() + wider * (np.array([low, high]) - p.mean())
    np.testing.assert_allclose([found.low[0, 1], found.high[0, 1]], expected, rtol=1e-12)
    again = win_rates(["p"] * 40, answers, strength, seed=11, resamples=500, level=0.9)
    assert again.as_dict() == found.as_dict()


def test_unanimous_prompts_have_an_interval() -> None:
    answers = {"a": ["1"] * 4, "b": ["0"] * 4}
    found = win_rates(["p"] * 4, answers, lambda p, a, b: np.array([float(x) for x in a]), seed=1, resamples=100)
    assert (found.rates[0, 1], found.high[0, 1]) == (1.0, 1.0)
    assert found.low[0, 1] == pytest.approx(0.025 ** (1 / 4))  # four wins of four, in a tail of 2.5 %


def test_intervals_cover_the_true_win_rate_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        wins = random.random(60) < 0.7
        answers = {"a": ["1" if w else "0" for w in wins], "b": ["0" if w else "1" for w in wins]}
        found = win_rates(["p"] * 60, answers, lambda p, a, b: np.array([float(x) for x in a]), seed=1, resamples=400)
        covered += bool(found.low[0, 1] <= 0.7 <= found.high[0, 1])
    assert 0.89 <= covered / 200 <= 0.99


def test_the_interval_of_an_average_knows_that_its_win_rates_share_prompts() -> None:
    """Two opponents with the same strengths: the average varies as much as one win rate, not less."""
    random = np.random.default_rng(2)
    a = [f"{v}" for v in random.normal(size=50)]
    found = win_rates(["p"] * 50, {"a": a, "b": ["0"] * 50, "c": ["0.0"] * 50}, strength, seed=0)
    assert found.average_low[0] == pytest.approx(found.low[0, 1], abs=1e-12)
    assert found.average_high[0] == pytest.approx(found.high[0, 1], abs=1e-12)


@pytest.mark.parametrize(("given", "said"), [([0.5, 1.5], "P = 1.5 on prompt 0"), ([0.5], r"\(1,\) probabilities")])
def test_answers_that_are_no_probabilities_are_refused(given: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        win_rates(["p"], {"a": ["x"], "b": ["y"]}, lambda p, a, b: np.array(given), seed=0)


def test_the_table_and_the_json_say_the_same() -> None:
    answers = {"start": ["0", "1", "0"], "main@1": ["3", "3", "0"]}
    found = win_rates(["p", "q", "r"], answers, strength, seed=0)
    data = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert data["policies"] == ["start", "main@1"]
    assert data["rates"][1][0] == found.rates[1, 0] and data["identical"] == 1 and data["prompts"] == 3
    stream = io.StringIO()
    Console(file=stream, width=120).print(found.table())
    text = stream.getvalue()
    assert f"{found.rates[1, 0]:.3f}" in text and f"{found.low[1, 0]:.2f}–{found.high[1, 0]:.2f}" in text
    assert "3 prompts" in text and "1 of equal answers" in " ".join(text.split()) and "changed winner" not in text
