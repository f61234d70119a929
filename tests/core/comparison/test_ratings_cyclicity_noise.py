"""What is called noise, and what is not: worlds with one score a policy, and worlds with a circle."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.special import expit, logit

from nashtune.comparison.cyclicity import log_odds
from nashtune.comparison.cyclicity_noise import FAINT, dispersion_of, drawn_rates, noise_share
from nashtune.comparison.elo import chains, ratings

ROCK_PAPER_SCISSORS = logit(np.array([0.7, 0.3, 0.7]))


def chance(p_CSN: np.ndarray, tables: int = 200) -> float:
    """As `rate` finds it."""
    policies = round((1 + np.sqrt(1 + 8 * len(p_CSN))) / 2)
    rates, counts = p_CSN.mean(axis=(1, 2))[None], np.full((1, len(p_CSN)), float(p_CSN[0].size))
    fit, _ = ratings(rates, counts, chains(rates, counts, policies), 0, tie=FAINT)
    return noise_share(p_CSN, log_odds(rates, counts, policies)[0], fit[0], tables=tables, seed=0)[1]


def worlds(number: int, odds_C: np.ndarray, seeds: int, prompts: int, *, of_pair_and_seed: float = 0.0, seed: int = 0):
    """Certain verdicts with these log-odds, to which each training of two policies adds its own."""
    random = np.random.default_rng(seed)
    for _ in range(number):
        moved = of_pair_and_seed * random.normal(size=(len(odds_C), seeds, 1))
        p = expit(np.asarray(odds_C)[:, None, None] + moved)
        yield random.binomial(1, np.broadcast_to(p, (len(odds_C), seeds, prompts))).astype(float)


def scores(policies: int, width: float) -> np.ndarray:
    """Log-odds of policies whose scores lie evenly."""
    each = np.linspace(width, 0, policies)
    return np.array([a - b for a, b in combinations(each, 2)])


@pytest.mark.parametrize(
    ("policies", "width", "seeds", "prompts"),
    [(4, 5.0, 1, 20), (6, 6.0, 1, 20), (8, 8.0, 1, 20), (8, 8.0, 1, 64), (4, 14.0, 1, 20), (4, 5.0, 3, 20)],
)
def test_scores_are_seldom_called_circles(policies: int, width: float, seeds: int, prompts: int):
    """By resamples of the judgements the first four were called so in 25, 55, 98 and 97 of 100."""
    found = [chance(p) < 0.05 for p in worlds(60, scores(policies, width), seeds, prompts)]
    assert np.mean(found) <= 0.1


@pytest.mark.parametrize(("policies", "seeds"), [(3, 2), (3, 5), (6, 3)])
def test_trainings_that_differ_are_seldom_called_circles(policies: int, seeds: int):
    equal = np.zeros(policies * (policies - 1) // 2)
    found = [chance(p) < 0.05 for p in worlds(60, equal, seeds, 200, of_pair_and_seed=0.4)]
    assert np.mean(found) <= 0.12


@pytest.mark.parametrize(("seeds", "prompts", "least"), [(1, 32, 0.85), (3, 64, 0.85), (5, 16, 0.9), (2, 64, 0.35)])
def test_a_circle_is_told_from_noise(seeds: int, prompts: int, least: float):
    found = [chance(p) < 0.05 for p in worlds(40, ROCK_PAPER_SCISSORS, seeds, prompts)]
    assert np.mean(found) >= least


def test_an_order_that_never_failed_says_nothing_of_circles():
    """Its share, of one imagined tie a pair, is 1/6 for every number of prompts."""
    for prompts in (2, 20, 300):
        assert chance(np.ones((6, 1, prompts))) > 0.5


def test_independent_verdicts_have_a_dispersion_of_one():
    odds = scores(5, 2.0)
    (p,) = worlds(1, odds, 1, 4000)
    found, freedom = dispersion_of(p, expit(odds))
    assert found == pytest.approx(1.0, abs=0.05)
    assert freedom == pytest.approx(6 * 3999, rel=0.1)  # 10 pairs less 4 scores, which are not quite alike


def test_answers_that_are_alike_for_all_seeds_count_once():
    odds = scores(4, 1.0)
    (p,) = worlds(1, odds, 1, 1000, seed=1)
    found, _ = dispersion_of(np.repeat(p, 5, axis=1), expit(odds))
    assert found == pytest.approx(5.0, rel=0.1)


def test_trainings_that_differ_in_strength_make_no_circles():
    """Each policy's strength moves with the seed: by much more than verdicts alone, but along its score."""
    random = np.random.default_rng(0)
    strength = 0.5 * random.normal(size=(5, 4))
    odds = np.array([strength[i] - strength[j] for i, j in combinations(range(5), 2)])
    p = random.binomial(1, expit(odds)[:, :, None], size=(10, 4, 500)).astype(float)
    found, _ = dispersion_of(p, np.full(10, 0.5))
    assert p.mean(axis=2).var(axis=1, ddof=1).mean() / (0.25 / 500) > 12
    assert 0.8 < found < 2.5


def test_judgements_that_are_no_verdicts_vary_less():
    odds = scores(4, 1.0)
    p = expit(odds[:, None, None] + 0.2 * np.random.default_rng(0).normal(size=(6, 1, 500)))
    found, _ = dispersion_of(p, expit(odds))
    assert 0.005 < found < 0.02


@pytest.mark.parametrize("dispersion", [1e-4, 0.25, 1.0, 6.0])
def test_drawn_tables_have_the_mean_and_the_variance(dispersion: float):
    rates, counts = np.array([0.5, 0.8, 0.97]), np.array([64.0, 64.0, 640.0])
    drawn = drawn_rates(rates, counts, np.full(40_000, dispersion), np.random.default_rng(0))
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert drawn.mean(axis=0) == pytest.approx(rates, abs=4e-3 * np.sqrt(dispersion))
    assert drawn.var(axis=0) == pytest.approx(dispersion * rates * (1 - rates) / counts, rel=0.06)


def test_what_there_is_nothing_to_say_of():
    (p,) = worlds(1, scores(3, 1.0), 1, 50)
    two = noise_share(p[:1], np.array([[0.0, 1.0], [-1.0, 0.0]]), np.array([1000.0, 900.0]), tables=10, seed=0)
    assert two == (0.0, 1.0)
    A, rating = log_odds(p.mean(axis=(1, 2))[None], np.full((1, 3), 50.0), 3)[0], np.full(3, 1000.0)
    assert np.isnan(noise_share(p, A, rating, tables=0, seed=0)).all()
    assert np.isnan(noise_share(p, 0 * A, rating, tables=10, seed=0)).all()
    assert np.isnan(noise_share(p, A, np.array([1000.0, np.nan, 1000.0]), tables=10, seed=0)).all()
