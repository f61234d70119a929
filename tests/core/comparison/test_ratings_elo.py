from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize

from nashtune.comparison.elo import chains, ratings
from nashtune.games.matrices import bradley_terry


def upper(P: np.ndarray) -> np.ndarray:
    """Win rates of the first of each pair, as the only row (1, C)."""
    return P[np.triu_indices(len(P), 1)][None]


def elo(rates: np.ndarray, counts: np.ndarray, policies: int, anchor: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return ratings(rates, counts, chains(rates, counts, policies), anchor)


@pytest.mark.parametrize("rate", [0.5, 0.75, 1 / 11, 1 - 1e-8])
def test_two_policies_have_a_closed_form(rate: float):
    found, imagined = elo(np.array([[rate]]), np.array([[64.0]]), 2)
    assert found[0, 0] == 1000.0
    assert found[0, 1] == pytest.approx(1000 - 400 * np.log10(rate / (1 - rate)), abs=1e-3)
    assert not imagined[0]


def test_scores_of_a_bradley_terry_game_come_back():
    scores = np.array([0.3, -1.2, 2.0, 0.0, 0.7])
    found, _ = elo(upper(bradley_terry(scores)), np.full((1, 10), 7.0), 5, anchor=3)
    assert found[0] == pytest.approx(1000 + 400 / np.log(10) * scores, abs=1e-9)


def test_it_is_the_maximum_of_the_likelihood():
    random = np.random.default_rng(1)
    rates, counts = random.random((1, 6)), random.integers(1, 50, (1, 6)).astype(float)

    def loss(free: np.ndarray) -> float:
        u = np.r_[0.0, free]
        odds = np.array([u[i] - u[j] for i, j in combinations(range(4), 2)])
        return float((counts[0] * (np.logaddexp(0, odds) - rates[0] * odds)).sum())

    expected = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    found, _ = elo(rates, counts, 4)
    assert (found[0, 1:] - 1000) * np.log(10) / 400 == pytest.approx(expected, abs=1e-6)


def test_rows_are_solved_independently_of_each_other():
    random = np.random.default_rng(2)
    rates, counts = random.random((20, 3)), random.integers(1, 9, (20, 3)).astype(float)
    rates[3] = 1.0  # this row needs ties, the others do not
    together, imagined = elo(rates, counts, 3)
    alone = np.vstack([elo(rates[[r]], counts[[r]], 3)[0] for r in range(20)])
    assert together == pytest.approx(alone, abs=1e-8)
    assert imagined.tolist() == [r == 3 for r in range(20)]


def test_a_policy_that_always_wins_gets_one_imagined_tie():
    found, imagined = elo(np.array([[0.0]]), np.array([[64.0]]), 2)
    assert imagined[0]
    assert found[0, 1] == pytest.approx(1000 + 400 * np.log10(64.5 / 0.5), abs=1e-9)


def test_a_group_that_always_beats_the_rest_is_noticed_too():
    rates = np.array([[0.5, 0.0, 0.0, 0.0, 0.0, 0.3]])  # 0 and 1 tie; 2 and 3 beat both always; 3 beats 2 often
    found, imagined = elo(rates, np.full((1, 6), 10.0), 4)
    assert imagined[0] and np.isfinite(found).all()
    assert found[0, 3] > found[0, 2] > found[0, 0] == pytest.approx(found[0, 1])


def test_a_circle_of_certain_wins_has_a_finite_maximum():
    rates = np.array([[1.0, 0.0, 1.0]])  # 0 beats 1, 1 beats 2, 2 beats 0
    found, imagined = elo(rates, np.full((1, 3), 10.0), 3)
    assert not imagined[0] and found[0] == pytest.approx([1000] * 3, abs=1e-9)


def test_a_policy_that_nothing_links_with_the_anchor_has_no_rating():
    rates = np.array([[0.25, np.nan, np.nan]])
    found, imagined = elo(rates, np.array([[8.0, 0.0, 0.0]]), 3)
    assert found[0, 1] == pytest.approx(1000 + 400 * np.log10(3), abs=1e-9)
    assert np.isnan(found[0, 2]) and not imagined[0]


def test_a_missing_pair_is_rated_through_others():
    rates = np.array([[0.25, np.nan, 0.25]])  # 1 beats 0, 2 beats 1, 0 never met 2
    found, _ = elo(rates, np.array([[8.0, 0.0, 8.0]]), 3)
    assert found[0] == pytest.approx(1000 + 400 * np.log10([1, 3, 9]), abs=1e-8)


@pytest.mark.parametrize("off", [1e-8, 1e-7, 1e-5])
@pytest.mark.parametrize("policies", [3, 5])
def test_a_judge_who_is_nearly_sure_has_a_maximum_that_is_found(off: float, policies: int):
    """Wins less expected wins are 1e-8 of either: by their difference Newton's method saw nothing but rounding."""
    pairs = policies * (policies - 1) // 2
    always = 1 - off * np.random.default_rng(0).random((4, pairs))
    found, imagined = elo(always, np.full(always.shape, 20.0), policies)
    assert not imagined.any()
    # the first differs from the last by the odds of its losses, and the likelihood's gradient is 0
    first, second = np.triu_indices(policies, 1)
    gap = (found[:, first] - found[:, second]) * np.log(10) / 400
    less = 1 / (1 + np.exp(gap))
    losses = np.stack([(less * (first == i) - less * (second == i)).sum(axis=1) for i in range(policies)])
    seen = np.stack(
        [((1 - always) * ((first == i).astype(float) - (second == i))).sum(axis=1) for i in range(policies)]
    )
    assert losses == pytest.approx(seen, rel=1e-4, abs=1e-5 * off)


def test_a_loss_of_a_saturated_judge_is_none():
    found, imagined = elo(np.array([[1 - 1e-10]]), np.array([[64.0]]), 2)
    assert imagined[0] and found[0, 1] == pytest.approx(1000 - 400 * np.log10(64.5 / 0.5), abs=1e-3)
