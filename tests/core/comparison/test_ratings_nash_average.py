from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

import nashtune.comparison.nash_average as module
from nashtune.comparison.nash_average import nash_average, nash_averages
from nashtune.errors import CheckFailed
from nashtune.evaluation.bootstrap import estimate, resample_weights
from nashtune.evaluation.estimate import Estimate
from nashtune.evaluation.pairwise import from_triangles, weighted_means
from nashtune.games.equilibrium import duality_gap, nash
from nashtune.games.find import find_game
from nashtune.games.matrices import bradley_terry, condorcet, cycle, from_upper


def one(P: np.ndarray) -> np.ndarray:
    return nash_averages(np.asarray(P)[None])[0]


def entropy(p: np.ndarray) -> float:
    held = p[p > 0]
    return float(-(held * np.log(held)).sum())


def test_circles_have_closed_forms():
    assert one(cycle(1.0, 1.0, 1.0)) == pytest.approx(np.full(3, 1 / 3), abs=1e-15)
    assert one(find_game("weighted_rps").matrix) == pytest.approx(np.array([2, 1, 4]) / 7, abs=1e-14)


def test_a_best_policy_is_all_of_the_mixture():
    P = bradley_terry([0.0, 3.0, 1.0])
    mixture = one(P)
    assert mixture == pytest.approx([0, 1, 0], abs=1e-15)
    assert P @ mixture == pytest.approx(P[:, 1], abs=1e-15)
    assert one(condorcet(4)) == pytest.approx([1, 0, 0, 0], abs=1e-15)


@pytest.mark.parametrize("seed", range(8))
def test_a_random_game_has_one_equilibrium(seed: int):
    P = from_upper(np.random.default_rng(seed).random((3 + seed, 3 + seed)))
    mixture = one(P)
    assert mixture == pytest.approx(nash(P), abs=1e-9)
    assert duality_gap(P, mixture) < 1e-13


def test_only_ties_give_the_uniform_mixture():
    assert one(np.full((5, 5), 0.5)) == pytest.approx(np.full(5, 0.2), abs=1e-12)


def test_copies_of_a_policy_share_its_weight_and_change_no_value():
    """Rock twice: the paper's reason for the maximum of the entropy."""
    P = cycle(0.9, 0.7, 0.6)
    twice = P[np.ix_([0, 0, 1, 2], [0, 0, 1, 2])]
    mixture = one(twice)
    assert mixture == pytest.approx(np.array([1, 1, 1, 4]) / 7, abs=1e-7)
    assert (twice @ mixture)[[0, 2, 3]] == pytest.approx(P @ one(P), abs=1e-7)


def test_a_constraint_from_outside_of_the_support_can_bind():
    """0 and 1 tie; 2 loses to 0 a little and beats 1 much, so the mixture must hold enough of 0."""
    P = from_upper(np.array([[0.5, 0.5, 0.6], [0.5, 0.5, 0.1], [0.0, 0.0, 0.5]]))
    mixture = one(P)
    assert mixture == pytest.approx([0.8, 0.2, 0.0], abs=1e-7)
    assert duality_gap(P, mixture) < 1e-8


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_most_even_of_many_equilibria(seed: int):
    """Coarse win rates and copies leave a choice; a general solver finds nothing more even."""
    random = np.random.default_rng(seed)
    small = from_upper(random.choice([0.0, 0.5, 1.0], size=(4, 4)))
    numbers = random.integers(0, 4, 7)
    P = small[np.ix_(numbers, numbers)]
    mixture = one(P)
    assert duality_gap(P, mixture) < 1e-8

    def negative(p: np.ndarray) -> float:
        return float((p * np.log(np.maximum(p, 1e-300))).sum())

    constraints = [
        {"type": "eq", "fun": lambda p: p.sum() - 1},
        {"type": "ineq", "fun": lambda p: -(P - 0.5) @ p},
    ]
    general = minimize(negative, nash(P), bounds=[(0, 1)] * 7, constraints=constraints, method="SLSQP")
    assert entropy(mixture) >= -general.fun - 1e-6


def test_rows_do_not_depend_on_those_before():
    random = np.random.default_rng(5)
    games = np.array([from_upper(random.random((5, 5))) for _ in range(40)])
    games[7, 0, 1] = np.nan
    together = nash_averages(games)
    assert np.isnan(together[7]).all()
    for r in (0, 13, 39):
        assert together[r] == pytest.approx(one(games[r]), abs=1e-12)


def test_win_rates_that_are_equal_but_for_rounding_are_equal():
    P = cycle(0.9, 0.7, 0.6)[np.ix_([0, 0, 1, 2], [0, 0, 1, 2])]
    shaken = P + 1e-16 * np.triu(np.ones((4, 4)), 1) - 1e-16 * np.tril(np.ones((4, 4)), -1)
    assert one(shaken) == pytest.approx(np.array([1, 1, 1, 4]) / 7, abs=1e-7)


def test_few_certain_judgements_have_equilibria_in_every_resample():
    """Fractions with small denominators leave all kinds of choices."""
    random = np.random.default_rng(2)
    for prompts in (2, 3, 5, 8):
        counts = random.multinomial(prompts, [1 / prompts] * prompts, 60)
        judgements = random.choice([0.0, 0.5, 1.0], size=(prompts, 5, 5))
        games = np.array([from_upper(each) for each in np.einsum("rn,nij->rij", counts, judgements) / prompts])
        for P, mixture in zip(games, nash_averages(games), strict=True):
            assert mixture.sum() == pytest.approx(1, abs=1e-9) and mixture.min() >= 0
            assert duality_gap(P, mixture) < 1e-9


@pytest.mark.parametrize("size", [1e-14, 1e-12, 1e-11, 1e-10, 1e-9, 4e-9])
def test_near_ties_are_ties(size: float):
    """Linear programs drop coefficients below 1e-9."""
    P = np.full((4, 4), 0.5)
    P[0, 1], P[1, 0] = 0.5 + size, 0.5 - size
    P[0, 3], P[3, 0] = 0.8, 0.2
    P[1, 3], P[3, 1] = 0.7, 0.3
    P[2, 3], P[3, 2] = 0.6, 0.4
    assert one(P) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0], abs=1e-6)


@pytest.mark.parametrize(("policies", "prompts"), [(3, 32), (4, 64)])
@pytest.mark.parametrize("confidence", [12.0, 20.0, 24.0])
def test_saturated_judges_have_a_mixture_in_every_resample(policies: int, prompts: int, confidence: float):
    """Probabilities of 1e-9 leave win rates of a tie off by as much; with 13 digits 6 of 8 such tables had none."""
    random = np.random.default_rng(0)
    weights = resample_weights(1, prompts, 400, seed=0).reshape(401, prompts)
    pairs = policies * (policies - 1) // 2
    for _ in range(4):
        sure = np.abs(random.normal(confidence, 3, size=(pairs, prompts)))
        rates = weighted_means(expit(random.choice([-1, 1], size=sure.shape) * sure), weights)
        games = from_triangles(rates, 1 - rates, policies)
        mixtures = nash_averages(games)
        assert not np.isnan(mixtures).any()
        assert max(duality_gap(P, mixture) for P, mixture in zip(games, mixtures, strict=True)) < 1e-7


def test_hostile_ties_of_all_sizes_fail_seldom_and_quietly():
    random = np.random.default_rng(0)
    sizes = [0, 1e-9, 5e-9, 1e-8, -1e-8, 3e-8, 1e-7, -1e-6, 0.1, -0.1, 0.5, -0.5]
    rates = 0.5 + random.choice(sizes, size=(400, 15))
    games = from_triangles(rates, 1 - rates, 6)
    mixtures = nash_averages(games)
    found = ~np.isnan(mixtures).any(axis=1)
    assert found.mean() > 0.99
    assert max(duality_gap(P, mixture) for P, mixture in zip(games[found], mixtures[found], strict=True)) < 1e-4


def test_a_search_that_fails_costs_one_resample(monkeypatch: pytest.MonkeyPatch):
    def fails_on_the_third(P: np.ndarray, *known: object) -> np.ndarray:
        if P[0, 1] == 0.53:
            raise CheckFailed("not this one")
        return np.array([1.0, 0.0])

    monkeypatch.setattr(module, "_nash_average", fails_on_the_third)
    rates = np.array([0.6, 0.6, 0.53, 0.61, np.nan])[:, None]
    games = from_triangles(rates, 1 - rates, 2)
    mixtures = nash_averages(games)
    assert np.isnan(mixtures).any(axis=1).tolist() == [False, False, True, False, True]
    apart = Estimate(games[0], games[0] - 0.05, games[0] + 0.05)
    found = nash_average(games, mixtures, apart, 0.95, ("a", "b"))
    assert found.failed == 1  # what was never compared is no failure
    assert found.share.tolist() == [1.0, 0.0] and found.determined and found.sure == ("a",)


def test_a_mixture_that_is_no_number_is_no_mixture(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_most_even", lambda A, start, support, apart: start * np.nan)
    assert np.isnan(one(np.full((3, 3), 0.5))).all()


def resampled_rates(rates: list[float], games: int, resamples: int = 300, seed: int = 0) -> tuple[np.ndarray, Estimate]:
    """A win matrix of certain verdicts and its resamples, and their quantiles."""
    random = np.random.default_rng(seed)
    drawn = np.vstack([rates, random.binomial(games, rates, size=(resamples, len(rates))) / games])
    policies = round((1 + np.sqrt(1 + 8 * len(rates))) / 2)
    P = from_triangles(drawn, 1 - drawn, policies)
    return P, estimate(P, 0.95)


def test_a_mixture_is_determined_if_all_of_its_members_are_sure():
    """c and d are about equal, and one of them is in the mixture in some resamples, the other in others."""
    P, interval = resampled_rates([0.7, 0.3, 0.3, 0.7, 0.7, 0.5], 200)
    mixtures = nash_averages(P)
    found = nash_average(P, mixtures, interval, 0.95, tuple("abcd"))
    assert found.weight.value == pytest.approx([1 / 3, 1 / 3, 1 / 6, 1 / 6], abs=1e-6)
    assert found.sure == ("a", "b") and not found.determined
    assert found.share[:2].min() > 0.95 > found.share[2:].max()

    P, interval = resampled_rates([0.7, 0.3, 0.7], 200)
    found = nash_average(P, nash_averages(P), interval, 0.95, tuple("abc"))
    assert found.determined and found.sure == ("a", "b", "c")


def test_a_policy_outside_that_may_be_inside_leaves_it_undetermined():
    """a is all of it in 88 % of the resamples; in the others b beats it."""
    P, interval = resampled_rates([0.5 + 0.06, 0.9, 0.9], 100)
    found = nash_average(P, nash_averages(P), interval, 0.95, tuple("abc"))
    assert found.weight.value.tolist() == [1, 0, 0] and found.share[1] > 0.05
    assert not found.determined and found.sure == ()


def test_few_prompts_that_agree_determine_nothing():
    """All resamples are alike, and every interval is wide: rock, paper, scissors by one prompt or two."""
    P = np.repeat(cycle(1.0, 1.0, 1.0)[None], 50, axis=0)
    wide = Estimate(P[0], 0.2 * P[0], 1 - 0.2 * (1 - P[0]))
    narrow = Estimate(P[0], P[0], P[0])
    mixtures = nash_averages(P)
    assert nash_average(P, mixtures, wide, 0.95, tuple("abc")).sure == ()
    assert nash_average(P, mixtures, narrow, 0.95, tuple("abc")).determined
    first = from_triangles(np.ones((50, 3)), np.zeros((50, 3)), 3)
    unsure = Estimate(first[0], 0.4 * first[0], 1 - 0.4 * (1 - first[0]))
    assert not nash_average(first, nash_averages(first), unsure, 0.95, tuple("abc")).determined
