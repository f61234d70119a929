"""What the methods' theory says, on exact runs: rates, bounds, fixed points, stability."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mirror_rates import mirror_critical_step, mirror_radius, optimistic_factor
from nashtune.games import find_game
from nashtune.games.equilibrium import (
    kl,
    nash,
    regularised_gap,
    regularised_nash,
)
from nashtune.games.matrices import Game, condorcet, from_upper, make_game
from tabular import averages, gap, mirror, nash_md, onpo

GAMES = ("weighted_rps", "rps", "random10")
TAU = 0.1
POINTS = np.array([200, 400, 800, 1600, 3200])


def slope(values: list[float]) -> float:
    return float(np.polyfit(np.log(POINTS), np.log(values), 1)[0])


@pytest.mark.parametrize(("name", "expected"), [("weighted_rps", -1.088), ("rps", -1.040), ("random10", -1.072)])
def test_the_average_of_onpo_falls_like_1_over_T(name: str, expected: float):
    game = find_game(name)
    mean = averages(onpo(game.matrix, np.log(game.start), 3200, 0.5))
    found = slope([gap(game.matrix, mean[T - 1]) for T in POINTS])
    assert -1.2 < found < -0.9 and found == pytest.approx(expected, abs=6e-4)


def test_a_long_run_has_the_rate_the_bound_and_the_linear_last_iterate(play):
    game = find_game("rps")
    report = play("onpo_virtual", [game], rounds=3199, loss={"eta": 0.5})
    assert slope([report.gap_average[T - 1] for T in POINTS]) == pytest.approx(-1.040, abs=6e-4)
    assert -1.2 < report.rate < -0.9
    formula, bounds = report.bound
    assert formula == "(2D/η + 2η)/T"
    assert all(found <= bound for found, bound in zip(report.gap_average, bounds, strict=True))
    assert bounds[-1] == pytest.approx((2 * math.log(10) / 0.5 + 1.0) / 3200)
    assert report.last_factor == pytest.approx(optimistic_factor(game.matrix, nash(game.matrix), 0.5) ** 2, abs=1e-4)
    assert report.gap_last[999] == pytest.approx(1.331e-5, rel=1e-3)
    assert report.gap_last[1999] == pytest.approx(2.409e-10, rel=1e-3)


@pytest.mark.parametrize("eta", [0.1, 0.5, 0.7])
def test_the_bound_holds_on_any_game(eta: float):
    random = np.random.default_rng(1)
    games = [from_upper(np.random.default_rng(seed).random((n, n))) for n in (3, 8, 20) for seed in (0, 1)]
    for P in [*games, condorcet(50), find_game("rps").matrix]:
        u = random.normal(size=len(P))
        u -= np.log(np.exp(u).sum())
        for T, mean in enumerate(averages(onpo(P, u, 200, eta)), start=1):
            assert gap(P, mean) <= (-2 * u.min() / eta + 2 * eta) / T


def test_constants_on_the_condorcet_game():
    """4 sqrt(D) is too small a constant; (2D/eta + 2eta) holds and is nearly reached."""
    for n, expected in ((10, 8.7871), (1000, 27.1318)):
        P, D = condorcet(n), math.log(n)
        path = averages(onpo(P, np.full(n, -D), 2000 if n == 10 else 200, 0.5))
        largest = max(T * gap(P, mean) for T, mean in enumerate(path, start=1))
        assert largest == pytest.approx(expected, abs=1e-4)
        assert 4 * math.sqrt(D) < largest < 2 * D / 0.5 + 1.0


@pytest.mark.parametrize("name", GAMES)
def test_the_average_of_tuned_mirror_descent_keeps_its_bound(name: str):
    game = find_game(name)
    for T in (10, 100, 1000):
        mean = averages(mirror(game.matrix, np.log(game.start), T, math.sqrt(game.divergence / T)))[-1]
        assert gap(game.matrix, mean) <= 4 * math.sqrt(game.divergence / T)


def test_mirror_descent_spirals_outwards_where_onpo_converges():
    game = find_game("rps")
    u = np.log(game.start)
    plain, optimistic = mirror(game.matrix, u, 3000, 0.5), onpo(game.matrix, u, 3000, 0.5)
    expected = {500: (0.9634, 3.069e-3), 1000: (0.7705, 1.331e-5), 2000: (0.8277, 2.409e-10)}
    for T, (out, near) in expected.items():
        assert gap(game.matrix, np.exp(plain[T - 1])) == pytest.approx(out, abs=1e-4)
        assert gap(game.matrix, np.exp(optimistic[T - 1])) == pytest.approx(near, rel=1e-3)


def from_star(name: str, tau: float = TAU) -> tuple[Game, np.ndarray]:
    game = find_game(name)
    return game, regularised_nash(game.matrix, game.start, tau)


@pytest.mark.parametrize("name", GAMES)
def test_the_regularised_nash_policy_is_a_fixed_point_of_inpo_and_nearly_one_of_nash_md(name: str):
    game, star = from_star(name)
    u, ref = np.log(star), np.log(game.start)
    for step in (0.05, 0.5, 2.0):
        after = (1 - step * TAU) * u + step * TAU * ref + step * (game.matrix @ star)
        assert np.abs(np.exp(after - np.log(np.exp(after).sum())) - star).max() < 1e-12
    drift = []
    for eta in (1e-2, 1e-3):
        mixed = (1 - eta * TAU) * u + eta * TAU * ref
        mixed -= np.log(np.exp(mixed).sum())
        after = mixed + eta * (game.matrix @ np.exp(mixed))
        drift.append(np.abs(np.exp(after - np.log(np.exp(after).sum())) - star).max())
    assert drift[0] > 0 and drift[0] / drift[1] == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("name", GAMES)
def test_inpo_is_stable_below_its_critical_step_and_not_above(name: str):
    game, star = from_star(name)
    critical = mirror_critical_step(game.matrix, star, TAU)
    ends = [np.exp(mirror(game.matrix, np.log(game.start), 4000, share * critical, TAU)[-1]) for share in (0.9, 1.1)]
    below, above = (regularised_gap(game.matrix, policy, game.start, TAU) for policy in ends)
    assert below < 1e-14
    assert above == pytest.approx({"weighted_rps": 1.899e-2, "rps": 3.540e-2, "random10": 4.428e-2}[name], rel=0.2)


@pytest.mark.parametrize("name", GAMES)
def test_inpo_converges_linearly_with_the_predicted_factor(name: str, play):
    game, star = from_star(name)
    report = play("inpo", [game], rounds=150, loss={"tau": TAU, "eta": 2.0})
    assert report.last_factor == pytest.approx(mirror_radius(game.matrix, star, 0.5, TAU) ** 2, abs=5e-3)


@pytest.mark.parametrize(("step", "floor"), [(0.5, 4.928e-5), (2.0, 9.594e-4)])
def test_nash_md_with_a_constant_step_stops_at_a_floor(step: float, floor: float):
    game = find_game("weighted_rps")
    end = np.exp(nash_md(game.matrix, np.log(game.start), 2000, step, TAU)[-1])
    assert regularised_gap(game.matrix, end, game.start, TAU) == pytest.approx(floor, rel=1e-3)


@pytest.mark.parametrize("spec", ["onpo", "inpo", "sppo_exact", "sppo", "nash_md"])
def test_a_game_of_ties_and_a_nash_policy_move_nothing(spec: str, play):
    ties = make_game("ties", np.full((3, 3), 0.5), [0.6, 0.3, 0.1])
    still = make_game("still", find_game("weighted_rps").matrix, [2 / 7, 1 / 7, 4 / 7])
    for game in (ties, still):
        loss = {"eta": 2.0} if spec == "inpo" else {"eta": 0.5}
        loss |= {"tau": TAU} if spec in ("inpo", "nash_md") else {}
        report = play(spec, [game], rounds=3, loss=loss)
        assert np.abs(report.last[0] - game.start).max() < 1e-12


@pytest.mark.parametrize("spec", ["onpo", "sppo_exact", "sppo", "inpo", "nash_md"])
def test_where_preferences_are_transitive_the_best_action_wins(spec: str, play):
    game = find_game("bradley_terry:1,0.5,0,-1")
    regularised = spec in ("inpo", "nash_md")
    loss = {"eta": 0.5 if spec == "inpo" else 2.0} | ({"tau": 0.1} if regularised else {})
    report = play(spec, [game], rounds=150, loss=loss)
    if not regularised:
        assert report.last[0][-1][0] > 1 - 1e-6 and report.gap_last[-1] < 1e-6
    elif spec == "inpo":
        assert np.abs(report.last[0][-1] - report.regularised_nash[0]).max() < 1e-9
    else:  # the floor of a constant step
        assert kl(report.regularised_nash[0], report.last[0][-1]) < 2e-3


def test_two_prompts_do_not_interact_and_their_gaps_are_averaged(play):
    one, two = find_game("rps"), find_game("random10")
    for spec, loss in (("onpo", {"eta": 0.5}), ("sppo", {"eta": 0.5}), ("inpo", {"eta": 2.0, "tau": TAU})):
        both = play(spec, [one, two], rounds=20, loss=loss)
        alone = [play(spec, [game], rounds=20, loss=loss) for game in (one, two)]
        for number in (0, 1):
            assert np.abs(both.last[number] - alone[number].last[0]).max() < 1e-12
        expected = [(a + b) / 2 for a, b in zip(alone[0].gap_last, alone[1].gap_last, strict=True)]
        assert both.gap_last == pytest.approx(expected, abs=1e-13)
