from __future__ import annotations

import math

import numpy as np
import pytest

from bandit_numbers import GOLD, REFERENCE, SIGMA
from nashtune.bandits.closed_forms import ellipsoid, kl, sphere, vanilla, weighted
from nashtune.bandits.risk import ellipsoid_risk, from_gains, sphere_risk

DRAWS = 20_000


def draws(sigma, size=DRAWS):
    return GOLD + sigma * np.random.default_rng(0).standard_normal((size, 6))


def near(found: float, expected: float, other_draws: int) -> bool:
    """Within three standard errors of the difference of two shares."""
    return abs(found - expected) <= 3.0 * math.sqrt(expected * (1.0 - expected) * (1.0 / DRAWS + 1.0 / other_draws))


@pytest.mark.parametrize(
    ("sigma", "blind", "aware"),
    [
        (SIGMA, 0.190907525799, 0.035141824772),
        (np.ones(6), 0.063518914753, 0.063518914753),
        (SIGMA[::-1], 0.179496771625, 0.022205300945),
    ],
)
def test_exact_risks_of_small_steps(sigma, blind: float, aware: float):
    assert sphere_risk([GOLD], [sigma**2]) == pytest.approx(blind, abs=1e-12)
    assert ellipsoid_risk([GOLD], [sigma**2]) == pytest.approx(aware, abs=1e-12)


def test_exact_risks_are_those_of_draws():
    R = draws(SIGMA)
    for direction, expected in ((sphere(R), 0.190907525799), (ellipsoid(R, SIGMA**2), 0.035141824772)):
        assert near(from_gains(direction @ GOLD, 1.0).value, expected, 10**12)


def test_exact_risks_of_two_prompts_are_those_of_draws():
    golds, sigmas = [GOLD[:3], GOLD[2:]], [SIGMA[:3], SIGMA[2:]]
    R = draws(SIGMA)
    R = [R[:, :3], draws(SIGMA)[::-1][:, 2:]]
    variances = [sigma**2 for sigma in sigmas]
    blind = sum(sphere(part) @ gold for part, gold in zip(R, golds, strict=True))
    aware = sum(ellipsoid(part, v) @ gold for part, gold, v in zip(R, golds, variances, strict=True))
    assert near(float((blind < 0).mean()), sphere_risk(golds, variances), 10**12)
    assert near(float((aware < 0).mean()), ellipsoid_risk(golds, variances), 10**12)


def test_awareness_never_adds_risk():
    random = np.random.default_rng(0)
    worst = 1.0
    for _ in range(2000):
        arms = int(random.integers(2, 9))
        gold, variance = random.standard_normal(arms), np.exp(random.uniform(-3, 3, arms))
        worst = min(worst, sphere_risk([gold], [variance]) - ellipsoid_risk([gold], [variance]))
    assert worst > -1e-15


def test_gain_at_a_given_radius():
    R = draws(SIGMA)
    for direction, mean, quantile in ((sphere(R), 0.033999, -0.036776), (ellipsoid(R, SIGMA**2), 0.029388, 0.004655)):
        gains = 0.05 * (direction @ GOLD) / np.linalg.norm(direction, axis=-1)
        found = from_gains(gains, 1.0)
        assert abs(found.mean_gain - mean) <= 3.0 * found.mean_gain_error
        assert found.quantile_5 == pytest.approx(quantile, abs=1.5e-3)


FORMS = {
    "vanilla": lambda R, sigma, beta: vanilla(R, REFERENCE, beta),
    "weighted": lambda R, sigma, beta: weighted(R, REFERENCE, beta * sigma**2 / (REFERENCE @ sigma**2))[0],
    "lcb": lambda R, sigma, beta: vanilla(R - sigma, REFERENCE, beta),
    "uwo": lambda R, sigma, beta: vanilla(R - 0.5 * sigma**2, REFERENCE, beta),
}


@pytest.mark.parametrize(
    ("noisy", "form", "beta", "divergence", "risk", "gain"),
    [
        ("bottom", "vanilla", 4, 0.03993, 0.23446, 0.04618),
        ("bottom", "weighted", 13.7003, 0.04010, 0.04328, 0.05664),
        ("bottom", "lcb", 5.0948, 0.04005, 0.02416, 0.10419),
        ("bottom", "uwo", 5.5445, 0.04008, 0.00940, 0.10912),
        ("bottom", "vanilla", 1, 0.39610, 0.33896, 0.04621),
        ("bottom", "weighted", 3.6023, 0.39596, 0.05496, 0.19766),
        ("bottom", "lcb", 0.9937, 0.39603, 0.06692, 0.29630),
        ("bottom", "uwo", 0.9540, 0.39649, 0.04046, 0.31448),
        ("top", "vanilla", 4, 0.06363, 0.14040, 0.08639),
        ("top", "weighted", 10.5694, 0.06349, 0.02820, 0.07663),
        ("top", "lcb", 3.2757, 0.06361, 0.54310, 0.00062),
        ("top", "uwo", 3.3032, 0.06368, 0.66672, -0.02512),
        ("top", "vanilla", 1, 0.72986, 0.09566, 0.34766),
        ("top", "weighted", 0.8520, 0.73306, 0.05610, 0.27150),
        ("top", "lcb", 0.6345, 0.73000, 0.40274, 0.15179),
        ("top", "uwo", 0.5530, 0.73313, 0.47042, 0.08464),
    ],
)
def test_risks_at_matched_divergence(noisy, form, beta, divergence, risk, gain):
    sigma = SIGMA if noisy == "bottom" else SIGMA[::-1]
    policies = FORMS[form](draws(sigma), sigma, beta)
    found = from_gains((policies - REFERENCE) @ GOLD, 1.0)
    assert near(found.value, risk, 50_000)
    assert abs(found.mean_gain - gain) <= 3.0 * found.mean_gain_error * math.sqrt(1.0 + DRAWS / 50_000)
    divergences = kl(policies, REFERENCE)
    assert abs(divergences.mean() - divergence) <= 4.0 * divergences.std() / math.sqrt(DRAWS)


@pytest.mark.parametrize(
    ("K", "independent", "floored", "inside", "mean_blind", "mean_aware"),
    [
        (2, 0.14165, 0.13181, 0.08559, 0.10898, 0.07708),
        (3, 0.09580, 0.09166, 0.04074, 0.06488, 0.01962),
        (5, 0.06378, 0.06204, 0.02687, 0.02505, 0.00133),
        (10, 0.04640, 0.04599, 0.02956, 0.00307, 0.00000),
        (30, 0.03677, 0.03733, 0.03153, 0.00003, 0.00000),
    ],
)
def test_risks_with_a_variance_that_members_estimate(K, independent, floored, inside, mean_blind, mean_aware):
    heads = GOLD + SIGMA * np.random.default_rng(0).standard_normal((DRAWS, K + 1, 6))
    s2, s2_inside = heads[:, 1:].var(1, ddof=1), heads[:, :K].var(1, ddof=1)
    floor = np.maximum(s2, 0.05 * s2.mean(-1, keepdims=True))
    others = 100_000 if K <= 10 else 30_000
    for direction, expected in (
        (ellipsoid(heads[:, 0], s2), independent),
        (ellipsoid(heads[:, 0], floor), floored),
        (ellipsoid(heads[:, 0], s2_inside), inside),
        (sphere(heads[:, 1:].mean(1)), mean_blind),
        (ellipsoid(heads[:, 1:].mean(1), s2), mean_aware),
    ):
        # a share of 0 has no standard error of its own: allow for one draw in ten thousand
        assert near(from_gains(direction @ GOLD, 1.0).value, max(expected, 1e-4), others)


def test_more_members_bring_the_risk_towards_that_of_known_variances():
    heads = GOLD + SIGMA * np.random.default_rng(0).standard_normal((DRAWS, 31, 6))
    risks = [
        from_gains(ellipsoid(heads[:, 0], heads[:, 1 : K + 1].var(1, ddof=1)) @ GOLD, 1.0).value for K in (2, 3, 5, 10)
    ]
    assert risks == sorted(risks, reverse=True)


def test_nothing_gained_is_no_loss_and_rounding_neither():
    found = from_gains(np.array([0.0, -1e-17, 1e-17, -1e-15]), 1.0)
    assert found.value == 0.0 and found.method == "monte_carlo"
    assert sphere_risk([np.ones(3)], [np.ones(3)]) == ellipsoid_risk([np.ones(3)], [np.ones(3)]) == 0.0
    assert from_gains(np.array([-0.5]), 1.0).method == "exact"


def test_standard_errors():
    found = from_gains(np.array([-1.0, 1.0, 1.0, 1.0]), 1.0)
    assert (found.value, found.standard_error) == (0.25, pytest.approx(math.sqrt(0.25 * 0.75 / 4)))
    assert (found.mean_gain, found.mean_gain_error) == (0.5, pytest.approx(math.sqrt(0.75) / 2))
