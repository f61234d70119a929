from __future__ import annotations

import numpy as np
import pytest

from mirror_rates import mirror_critical_step, mirror_radius, optimistic_factor
from nashtune.games.equilibrium import (
    duality_gap,
    kl,
    nash,
    normalise,
    regularised_gap,
    regularised_nash,
)
from nashtune.games.find import find_game
from nashtune.games.matrices import from_upper

TAU = 0.1
STARS = {
    "weighted_rps": [0.4338486101, 0.1481849189, 0.4179664710],
    "rps": [0.4320653245, 0.2303293113, 0.3376053642],
    "random10": [
        *(0.044261103869, 0.096411238522, 0.240527981298, 0.198186812580, 0.086294359312),
        *(0.098325853447, 0.021595988752, 0.014181624048, 0.093555129564, 0.106659908608),
    ],
}
PLAIN_GAP = {"weighted_rps": 0.0349546409, "rps": 0.2017360132, "random10": 0.1290259470}
START_GAP = {"weighted_rps": 0.0549310308, "rps": 0.1487455771, "random10": 0.0808092473}
CRITICAL = {"weighted_rps": 8.137635, "rps": 2.202975, "random10": 7.037297}
RADIUS = {"weighted_rps": 0.951731, "rps": 0.959895, "random10": 0.952265}


def random_game(n: int, seed: int) -> np.ndarray:
    return from_upper(np.random.default_rng(seed).random((n, n)))


def test_the_nash_policy_of_a_cycle_has_a_closed_form():
    assert nash(find_game("weighted_rps").matrix) == pytest.approx(np.array([2, 1, 4]) / 7, abs=1e-9)
    assert nash(find_game("rps").matrix) == pytest.approx(np.full(3, 1 / 3), abs=1e-9)


def test_the_nash_policy_of_the_random_game():
    found = nash(find_game("random10").matrix)
    expected = [
        *(0, 0.137456673324, 0.318622959583, 0.148262048032, 0.072174947278),
        *(0.118744888338, 0, 0, 0.056579494767, 0.148158988679),
    ]
    assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", range(6))
def test_gaps_are_not_negative_and_zero_at_equilibrium(seed: int):
    random = np.random.default_rng(seed)
    P, reference, tau = random_game(7, seed), np.exp(normalise(random.normal(size=7))), 10.0 ** random.uniform(-3, 1)
    star = regularised_nash(P, reference, tau)
    assert abs(duality_gap(P, nash(P))) < 1e-8
    assert 0 <= regularised_gap(P, star, reference, tau) < 1e-12
    for _ in range(5):
        policy = np.exp(normalise(random.normal(size=7)))
        assert duality_gap(P, policy) >= -1e-12
        assert regularised_gap(P, policy, reference, tau) > 0


def test_the_regularised_gap_is_its_definition_and_tends_to_the_plain_one():
    P, policy, reference = random_game(5, 3), np.full(5, 0.2), np.array([0.3, 0.3, 0.2, 0.1, 0.1])
    best = TAU * np.log((reference * np.exp(P @ policy / TAU)).sum()) + TAU * kl(policy, reference)
    assert regularised_gap(P, policy, reference, TAU) == pytest.approx(2 * best - 1, abs=1e-14)
    assert regularised_gap(P, policy, reference, 1e-6) == pytest.approx(duality_gap(P, policy), abs=1e-4)


@pytest.mark.parametrize("name", STARS)
def test_reference_numbers_of_the_regularised_games(name: str):
    game = find_game(name)
    P, star = game.matrix, regularised_nash(game.matrix, game.start, TAU)
    assert star == pytest.approx(STARS[name], abs=1e-10)
    assert duality_gap(P, star) == pytest.approx(PLAIN_GAP[name], abs=5e-10)
    assert regularised_gap(P, game.start, game.start, TAU) == pytest.approx(START_GAP[name], abs=5e-11)
    assert mirror_critical_step(P, star, TAU) == pytest.approx(CRITICAL[name], abs=1e-6)
    assert mirror_radius(P, star, 0.5, TAU) == pytest.approx(RADIUS[name], abs=1e-6)
    for share, stable in ((0.9, True), (1.1, False)):
        assert (mirror_radius(P, star, share * CRITICAL[name], TAU) < 1) is stable


def test_the_factor_of_optimistic_mirror_descent():
    weighted, cyclic = find_game("weighted_rps").matrix, find_game("rps").matrix
    assert optimistic_factor(weighted, nash(weighted), 0.5) == pytest.approx(0.998566, abs=1e-6)
    assert optimistic_factor(cyclic, nash(cyclic), 0.5) == pytest.approx(0.989300, abs=1e-6)


def test_a_divergence_from_a_policy_without_the_action_is_infinite():
    assert kl(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == np.inf
    assert kl(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))
