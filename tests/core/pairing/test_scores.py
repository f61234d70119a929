"""Pairs from scores."""

from __future__ import annotations

import math

import pytest

from nashtune.pairing.scores import adjacent, all_pairs, best_worst

EVERY = [best_worst, all_pairs, adjacent]


def test_best_worst_takes_the_extremes():
    assert best_worst([0.1, 0.9, -0.5, 0.3]) == [(1, 2)]


def test_best_worst_takes_the_first_of_equals():
    assert best_worst([0.0, 1.0, 1.0, 0.0]) == [(1, 0)]


def test_all_pairs_covers_every_two():
    assert all_pairs([0.1, 0.9, -0.5]) == [(1, 0), (1, 2), (0, 2)]
    assert len(all_pairs(range(6))) == 15


def test_all_pairs_leaves_out_equals_only():
    assert all_pairs([1.0, 1.0, 0.0]) == [(0, 2), (1, 2)]


def test_adjacent_walks_down_the_ranking():
    assert adjacent([0.1, 0.9, -0.5]) == [(1, 0), (0, 2)]


@pytest.mark.parametrize(
    ("kind", "expected"), [(best_worst, [(2, 0)]), (all_pairs, [(2, 1), (2, 0)]), (adjacent, [(2, 1)])]
)
def test_min_gap_leaves_out_close_ones_and_keeps_the_bound_itself(kind, expected):
    assert kind([0.0, 0.25, 0.75], min_gap=0.5) == expected
    assert kind([0.0, 0.25, 0.75], min_gap=0.8) == []


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5, 0.5]])
def test_too_few_or_equal_scores_give_no_pair(kind, scores):
    assert kind(scores) == []


@pytest.mark.parametrize("kind", EVERY)
def test_the_chosen_one_is_always_better(kind):
    scores = [0.3, -0.2, 0.3, 0.9, 0.0]
    assert all(scores[chosen] > scores[rejected] for chosen, rejected in kind(scores))


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(kind, bad):
    with pytest.raises(ValueError, match="score 1 is"):
        kind([0.0, bad])
