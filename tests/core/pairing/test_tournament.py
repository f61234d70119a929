"""INPO's bracket."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from nashtune.pairing.drive import drive
from nashtune.pairing.tournament import Tournament


def play(n, p):
    """Pairs, dropped, and the levels of comparisons of one prompt; `p(i, j)` is P(i > j)."""
    levels = []

    def ask(comparisons):
        levels.append([(i, j) for _, i, j in comparisons])
        return [p(i, j) for _, i, j in comparisons]

    (found,) = drive([Tournament().compare(n, np.random.default_rng(0))], ask)
    return [(pair.chosen, pair.rejected, pair.p_chosen) for pair in found.pairs], found.dropped, levels


def strength(values):
    return lambda i, j: 1 / (1 + math.exp(values[j] - values[i]))


def test_eight_completions_play_the_bracket_of_the_paper():
    values = [3, 1, 7, 2, 0, 6, 5, 4]
    pairs, dropped, levels = play(8, strength(values))
    assert levels == [
        [(0, 1), (2, 3), (4, 5), (6, 7)],
        [(0, 2), (5, 6), (1, 3), (4, 7)],  # winners 0 2 5 6 and losers 1 3 4 7, side by side
        [(2, 5), (1, 4)],
        [(2, 4)],
    ]
    assert sum(map(len, levels)) == 11
    assert pairs == [(2, 4, pytest.approx(1 / (1 + math.exp(-7)), rel=1e-15))]
    assert dropped == {}
    assert pairs[0][0] == values.index(7) and pairs[0][1] == values.index(0)


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_most_is_what_is_asked(n):
    _, _, levels = play(n, strength(range(n)))
    comparisons = sum(map(len, levels))
    assert Tournament().most(n) == (comparisons, 1) == (3 * n // 2 - 1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_transitive_order_gives_its_best_against_its_worst(seed):
    values = np.random.default_rng(seed).permutation(8).tolist()
    pairs, _, _ = play(8, strength(values))
    assert [(chosen, rejected) for chosen, rejected, _ in pairs] == [(values.index(7), values.index(0))]


def test_of_equals_the_first_wins():
    _, dropped, levels = play(8, lambda i, j: 0.5)
    assert levels[1:] == [[(0, 2), (4, 6), (1, 3), (5, 7)], [(0, 4), (3, 7)], [(0, 7)]]
    assert dropped == {"tie": 1}  # the final is not won


def test_a_winner_that_loses_to_the_loser_makes_no_pair():
    """A cycle: 0 beats everyone but 3, who loses to 2."""
    order = strength([3, 1, 2, 0])
    pairs, dropped, levels = play(4, lambda i, j: 0.1 if (i, j) == (0, 3) else order(i, j))
    assert levels[-1] == [(0, 3)]
    assert pairs == [] and dropped == {"inconsistent": 1}


@pytest.mark.parametrize("match", list(combinations(range(4), 2)))
def test_a_match_without_an_answer_ends_the_prompt(match):
    order = strength([3, 1, 2, 0])
    pairs, dropped, levels = play(4, lambda i, j: math.nan if (i, j) == match else order(i, j))
    if any(match in level for level in levels):
        assert pairs == [] and dropped == {"unparsed": 1} and match in levels[-1]
    else:
        assert len(pairs) == 1 and not dropped


def test_every_missing_answer_of_a_level_is_counted():
    assert play(8, lambda i, j: math.nan if i in (2, 6) else 0.9)[1] == {"unparsed": 2}


@pytest.mark.parametrize("n", [0, 1, 3, 6, 12])
def test_another_number_is_refused_before_anything_is_asked(n):
    with pytest.raises(ValueError, match=rf"sampler\.completions: .*power of two, and {n} is none; give 2, 4, 8"):
        Tournament().compare(n, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"sampler\.completions"):
        Tournament().most(n)
