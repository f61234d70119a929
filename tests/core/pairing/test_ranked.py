"""Pairs by win rate."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from nashtune.pairing.drive import drive
from nashtune.pairing.ranked import Adjacent, AllPairs, BestWorst

EVERY = [BestWorst, AllPairs, Adjacent]
SCORES = (1.2, -0.3, 0.5, 2.0, -1.1)  # of the five answers that SPPO ranks
RATES = (0.6409329612, 0.3547096970, 0.5072461236, 0.7746637483, 0.2224474699)


def bradley_terry(scores):
    return lambda i, j: 1 / (1 + math.exp(scores[j] - scores[i]))


def by_matrix(rows):
    return lambda i, j: rows[i][j]


def pair(pairing, n, p):
    def ask(comparisons):
        assert [(i, j) for _, i, j in comparisons] == list(combinations(range(n), 2))
        return [p(i, j) for _, i, j in comparisons]

    (found,) = drive([pairing.compare(n, np.random.default_rng(0))], ask)
    return found


def couples(found):
    return [(one.chosen, one.rejected) for one in found.pairs]


def test_best_worst_of_five_has_the_win_rates_of_sppo():
    found = pair(BestWorst(), 5, bradley_terry(SCORES))
    (one,) = found.pairs
    assert (one.chosen, one.rejected) == (3, 4)
    assert one.win_rate_chosen == pytest.approx(RATES[3], abs=1e-10)
    assert one.win_rate_rejected == pytest.approx(RATES[4], abs=1e-10)
    assert one.p_chosen == pytest.approx(0.9568927451, abs=1e-10)
    assert found.dropped == {}


def test_all_pairs_and_adjacent_rank_by_win_rate():
    everyone = pair(AllPairs(), 5, bradley_terry(SCORES))
    assert couples(everyone) == list(combinations([3, 0, 2, 1, 4], 2))
    neighbours = pair(Adjacent(), 5, bradley_terry(SCORES))
    assert couples(neighbours) == [(3, 0), (0, 2), (2, 1), (1, 4)]
    for one in (*everyone.pairs, *neighbours.pairs):
        assert one.win_rate_chosen == pytest.approx(RATES[one.chosen], abs=1e-10)
        assert one.win_rate_rejected == pytest.approx(RATES[one.rejected], abs=1e-10)
        expected = bradley_terry(SCORES)(one.chosen, one.rejected)
        assert one.p_chosen == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_most_is_reached_where_all_differ(kind, n):
    assert kind().most(n) == (n * (n - 1) // 2, len(pair(kind(), n, bradley_terry(range(n))).pairs))
    assert kind.gives_win_rates


def test_win_rates_decide_and_not_the_meeting_itself():
    """0 has the best win rate and 2 the worst, although 2 beats 0."""
    p = by_matrix([[0.5, 1.0, 0.4, 1.0], [0, 0.5, 0.9, 0.5], [0, 0, 0.5, 0.0], [0, 0, 0, 0.5]])
    (one,) = pair(BestWorst(), 4, p).pairs
    assert (one.chosen, one.rejected, one.p_chosen) == (0, 2, 0.4)
    assert one.win_rate_chosen == pytest.approx((0.5 + 1.0 + 0.4 + 1.0) / 4)
    assert one.win_rate_rejected == pytest.approx((0.5 + 0.6 + 0.1 + 0.0) / 4)


def test_a_cycle_is_all_ties():
    p = by_matrix([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    for kind, ties in ((BestWorst, 1), (AllPairs, 3), (Adjacent, 2)):
        found = pair(kind(), 3, p)
        assert found.pairs == () and found.dropped == {"tie": ties}


def test_win_rates_that_only_rounding_tells_apart_are_a_tie():
    """0.4 twice, but 1 - 0.6 + 1 - 0.7 and 1 - 1.0 + 0.7 differ in their last bits."""
    p = by_matrix([[0.5, 1.0, 0.6], [0, 0.5, 0.7], [0, 0, 0.5]])
    found = pair(AllPairs(), 3, p)
    assert found.pairs[0].win_rate_rejected != found.pairs[1].win_rate_rejected
    assert couples(found) == [(0, 1), (0, 2)] and found.dropped == {"tie": 1}


def test_min_gap_leaves_out_close_ones_and_keeps_the_bound_itself():
    p = by_matrix([[0.5, 0.7, 0.9], [0, 0.5, 0.7], [0, 0, 0.5]])  # win rates 0.7, 0.5, 0.3
    assert couples(pair(AllPairs(min_gap=0.2), 3, p)) == [(0, 1), (0, 2), (1, 2)]
    found = pair(AllPairs(min_gap=0.3), 3, p)
    assert couples(found) == [(0, 2)] and found.dropped == {"close": 2}
    found = pair(Adjacent(min_gap=0.3), 3, p)
    assert couples(found) == [] and found.dropped == {"close": 2}
    assert pair(BestWorst(min_gap=0.5), 3, p).dropped == {"close": 1}


def test_a_comparison_without_an_answer_is_in_no_win_rate_and_makes_no_pair():
    p = by_matrix([[0.5, math.nan, 0.9], [0, 0.5, 0.6], [0, 0, 0.5]])
    found = pair(AllPairs(), 3, p)
    assert couples(found) == [(0, 2), (1, 2)] and found.dropped == {"unparsed": 1}
    rates = {one.chosen: one.win_rate_chosen for one in found.pairs}
    assert rates == {0: pytest.approx((0.5 + 0.9) / 2), 1: pytest.approx((0.5 + 0.6) / 2)}
    assert found.pairs[0].win_rate_rejected == pytest.approx((0.5 + 0.1 + 0.4) / 3)


@pytest.mark.parametrize("kind", EVERY)
def test_without_any_answer_there_is_no_pair(kind):
    found = pair(kind(), 4, lambda i, j: math.nan)
    assert found.pairs == () and found.dropped == {"unparsed": 6}


def test_the_best_and_the_worst_whose_meeting_has_no_answer_are_no_pair():
    p = by_matrix([[0.5, 0.8, math.nan], [0, 0.5, 0.8], [0, 0, 0.5]])
    found = pair(BestWorst(), 3, p)
    assert found.pairs == () and found.dropped == {"unparsed": 1}


@pytest.mark.parametrize("kind", EVERY)
def test_one_completion_is_refused(kind):
    with pytest.raises(ValueError, match=r"sampler\.completions: 1 completion per prompt makes no pair"):
        kind().compare(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 2"):
        kind().most(1)
