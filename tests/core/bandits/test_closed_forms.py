from __future__ import annotations

import numpy as np
import pytest

from bandit_numbers import ESTIMATE, GOLD, REFERENCE, SIGMA, V
from nashtune.bandits.closed_forms import at_distance, ellipsoid, kl, log_weighted, reverse, sphere, vanilla, weighted

PRINTED = 1e-10
CENTRED = ESTIMATE - REFERENCE @ ESTIMATE
ROWS = {
    "vanilla": (
        vanilla(ESTIMATE, REFERENCE, 1.0),
        [0.2001825291, 0.2483964978, 0.2982740177, 0.1575208495, 0.0244257253, 0.0712003808],
        (0.1393020363, 0.3350245984),
    ),
    "detached": (
        weighted(ESTIMATE, REFERENCE, V)[0],
        [0.7772550405, 0.0005046789, 0.0227511212, 0.0585638094, 0.0607508906, 0.0801744594],
        (1.3917341224, 0.6856507024),
    ),
    "exact": (
        weighted(ESTIMATE, REFERENCE, V, shift=1.0)[0],
        [0.9098737209, 0.0005907895, 0.0126965189, 0.0239099640, 0.0229387204, 0.0299902863],
        (1.8378691238, 0.8766007525),
    ),
    "precision": (
        vanilla(ESTIMATE / V, REFERENCE, 1.0),
        [0.9993494815, 0.0006488869, 0.0000015221, 0.0000000611, 0.0000000224, 0.0000000261],
        (2.2966983190, 0.9997390856),
    ),
    "precision, centred": (
        vanilla(CENTRED / V, REFERENCE, 1.0),
        [0.9993426159, 0.0006488825, 0.0000073793, 0.0000005763, 0.0000002495, 0.0000002965],
        (2.2966041965, 0.9997330546),
    ),
    "lcb": (
        vanilla(ESTIMATE - SIGMA, REFERENCE, 1.0),
        [0.2555437650, 0.3170914893, 0.3117422353, 0.0998552780, 0.0056962097, 0.0100710227],
        (0.3435939962, 0.4968047014),
    ),
    "uwo": (
        vanilla(ESTIMATE - 0.5 * SIGMA**2, REFERENCE, 1.0),
        [0.2410125747, 0.2990604613, 0.3315014223, 0.1203227049, 0.0041630851, 0.0039397516],
        (0.3370701267, 0.4815381255),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_policies_divergences_and_gold_of_the_first_draw(name: str):
    policy, expected, (divergence, gold) = ROWS[name]
    assert policy == pytest.approx(expected, abs=PRINTED)
    assert float(kl(policy, REFERENCE)) == pytest.approx(divergence, abs=PRINTED)
    assert policy @ GOLD == pytest.approx(gold, abs=PRINTED)
    assert policy.sum() == pytest.approx(1.0, abs=1e-12)


def test_levels_of_the_first_draw():
    assert float(weighted(ESTIMATE, REFERENCE, V)[1]) == pytest.approx(0.9158611255, abs=PRINTED)
    assert float(weighted(ESTIMATE, REFERENCE, V, shift=1.0)[1]) == pytest.approx(0.8470738321, abs=PRINTED)


def test_only_the_precision_form_sees_a_constant_added_to_all_rewards():
    def change(form):
        return np.abs(form(ESTIMATE + 1.0) - form(ESTIMATE)).max()

    for shift in (0.0, 1.0):
        assert change(lambda R, shift=shift: weighted(R, REFERENCE, V, shift=shift)[0]) < 1e-14
    assert change(lambda R: vanilla(R, REFERENCE, 1.0)) < 1e-14
    assert change(lambda R: vanilla(R / V, REFERENCE, 1.0)) == pytest.approx(1.6e-6, rel=0.05)


def test_equal_variances_give_the_vanilla_form_and_arms_may_be_permuted():
    for shift in (0.0, 1.0):
        same = weighted(ESTIMATE, REFERENCE, np.full(6, 0.7), shift=shift)[0]
        assert same == pytest.approx(vanilla(ESTIMATE, REFERENCE, 0.7), abs=1e-14)
        order = np.array([3, 1, 5, 0, 2, 4])
        moved = weighted(ESTIMATE[order], REFERENCE[order], V[order], shift=shift)[0]
        assert moved == pytest.approx(weighted(ESTIMATE, REFERENCE, V, shift=shift)[0][order], abs=1e-14)


def test_many_draws_are_solved_as_one_by_one():
    draws = np.random.default_rng(1).normal(size=(50, 6))
    policies, levels = weighted(draws, REFERENCE, V)
    for reward, policy, level in zip(draws, policies, levels, strict=True):
        alone, its_level = weighted(reward, REFERENCE, V)
        assert policy == pytest.approx(alone, abs=1e-14) and level == pytest.approx(float(its_level), abs=1e-12)


def test_the_weighted_form_maximises_its_objective():
    policy = weighted(ESTIMATE, REFERENCE, V, shift=1.0)[0]

    def objective(pi):
        return pi @ ESTIMATE - (pi * V * np.log(pi / REFERENCE)).sum()

    random = np.random.default_rng(2)
    for size in (1e-3, 1e-1, 1.0):
        other = policy * np.exp(size * random.normal(size=6))
        assert objective(policy) > objective(other / other.sum())


def test_the_reverse_form_is_stationary_for_the_reverse_divergence():
    c = np.full(6, 0.3)
    policy, level = reverse(ESTIMATE, REFERENCE, c)
    # d/dπ of π.R - c KL(π₀ || π) is R + c π₀/π, equal on all arms
    assert ESTIMATE + c * REFERENCE / policy == pytest.approx(np.full(6, float(level) + 0.3), abs=1e-10)
    assert policy.sum() == pytest.approx(1.0, abs=1e-12) and (policy > 0).all()


def test_steps_of_given_length():
    blind = at_distance(sphere(ESTIMATE), REFERENCE, 0.05)
    aware = at_distance(ellipsoid(ESTIMATE, SIGMA**2), REFERENCE, 0.05)
    assert blind == pytest.approx(
        [0.1235658697, 0.2112277844, 0.2601898403, 0.1994552861, 0.1087142195, 0.0968469999], abs=PRINTED
    )
    assert aware == pytest.approx(
        [0.1439411414, 0.1802452378, 0.2409592502, 0.1927522281, 0.1434556875, 0.0986464549], abs=PRINTED
    )
    assert (blind - REFERENCE) @ GOLD == pytest.approx(0.051692520739, abs=1e-12)
    assert (aware - REFERENCE) @ GOLD == pytest.approx(0.034116049748, abs=1e-12)


def test_an_arm_nobody_knows_stays_at_the_reference():
    moved = []
    for doubtful in (1.0, 1e3, 1e6):
        variance = SIGMA**2
        variance[3] = doubtful
        step = ellipsoid(ESTIMATE, variance)
        moved.append(abs(step[3]) / np.abs(step).max())
    assert moved[0] > moved[1] > moved[2] and moved[2] < 1e-5


def test_coefficients_far_below_the_resolution_of_rewards():
    reward, reference = np.array([1.0, 0.9, 0.0]), np.array([0.2, 0.3, 0.5])
    for find in (weighted, reverse):
        for tiny in (1e-12, 1e-20, 1e-200):
            policy, level = find(reward, reference, np.array([tiny, 0.05, 0.5]))
            others = find(np.array([1.0, 0.9, 0.0]), reference, np.array([1e-9, 0.05, 0.5]))[0]
            assert policy == pytest.approx(others, abs=1e-7) and level == pytest.approx(1.0, abs=1e-8)
            assert policy.sum() == pytest.approx(1.0, abs=1e-15)
    log_policy, _ = log_weighted(1e5 * reward, reference, np.full(3, 0.1))
    assert log_policy - log_policy[0] == pytest.approx(1e6 * (reward - 1.0) + np.log(reference / 0.2))
