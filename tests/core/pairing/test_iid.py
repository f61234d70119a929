"""Independent pairs with drawn or likely labels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nashtune.pairing.drive import drive
from nashtune.pairing.iid import IID


def paired(pairing, answers, seed=0):
    n = 2 * len(answers)
    (found,) = drive([pairing.compare(n, np.random.default_rng(seed))], lambda asked: answers[: len(asked)])
    return [(pair.chosen, pair.rejected, pair.p_chosen) for pair in found.pairs], found.dropped


def test_completions_meet_two_by_two():
    asked = []

    def ask(comparisons):
        asked.extend(comparisons)
        return [1.0] * len(comparisons)

    (found,) = drive([IID().compare(6, np.random.default_rng(0))], ask)
    assert asked == [(0, 0, 1), (0, 2, 3), (0, 4, 5)]
    assert [(pair.chosen, pair.rejected) for pair in found.pairs] == [(0, 1), (2, 3), (4, 5)]
    assert IID().most(6) == (3, 3)


def test_the_likely_one_is_chosen_and_a_tie_is_left_out():
    pairs, dropped = paired(IID(label="likely"), [0.8, 0.3, 0.5, 0.50001])
    assert pairs == [(0, 1, 0.8), (3, 2, 0.7), (6, 7, 0.50001)]
    assert dropped == {"tie": 1}


def test_a_sampled_label_is_a_bernoulli_draw_from_the_given_stream():
    n, p = 20_000, 0.3
    pairs, dropped = paired(IID(), [p] * n)
    first = sum(chosen % 2 == 0 for chosen, _, _ in pairs)
    assert len(pairs) == n and not dropped
    assert abs(first / n - p) < 4 * math.sqrt(p * (1 - p) / n)
    uniform = np.random.default_rng(0).random(n)
    assert [chosen % 2 == 0 for chosen, _, _ in pairs] == (uniform < p).tolist()
    assert {(chosen % 2, value) for chosen, _, value in pairs} == {(0, 0.3), (1, 0.7)}


def test_sampled_labels_of_certain_preferences_are_certain_and_a_tie_is_a_coin():
    pairs, _ = paired(IID(), [1.0, 0.0] * 200)
    assert all((chosen, value) == (4 * (i // 2) + 3 * (i % 2), 1.0) for i, (chosen, _, value) in enumerate(pairs))
    coins, dropped = paired(IID(), [0.5] * 1000)
    assert len(coins) == 1000 and not dropped
    assert 400 < sum(chosen % 2 for chosen, _, _ in coins) < 600


@pytest.mark.parametrize("label", ["sampled", "likely"])
def test_a_comparison_without_an_answer_is_counted_and_moves_no_other_label(label):
    answers = [0.4, 0.6, 0.7, 0.2]
    whole, _ = paired(IID(label=label), answers)
    pairs, dropped = paired(IID(label=label), [0.4, math.nan, 0.7, 0.2])
    assert pairs == [whole[0], *whole[2:]]
    assert dropped == {"unparsed": 1}


@pytest.mark.parametrize("n", [0, 1, 5])
def test_an_odd_number_is_refused_before_anything_is_asked(n):
    with pytest.raises(ValueError, match=rf"sampler\.completions: .* {n} is not an even number; give {max(2, n + 1)}"):
        IID().compare(n, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"sampler\.completions"):
        IID().most(n)
