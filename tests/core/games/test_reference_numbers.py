"""Duality gaps of every method on three games, against numbers that were computed from the closed forms elsewhere.

`reference_gaps.json` holds, by game and by "method | metric", the gaps at T = 1, 2, 5, ... 200 policies.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nashtune.games import find_game
from nashtune.games.equilibrium import regularised_gap
from tabular import mirror, nash_md, onpo, onpo_single

REFERENCE = json.loads(Path(__file__).with_name("reference_gaps.json").read_text())
T = np.array([1, 2, 5, 10, 20, 50, 100, 200])
TAU = 0.1
METHODS = {
    "onpo": ("onpo", {"eta": 0.5}),
    "onpo, small step": ("onpo", {"eta": 0.125}),
    "sppo_exact": ("sppo_exact", {"eta": 0.5}),
    "sppo": ("sppo", {"eta": 0.5}),
    "inpo": ("inpo", {"tau": TAU, "eta": 2.0}),
    "inpo, last iterate": ("inpo", {"tau": TAU, "eta": None, "eta_rule": "last_iterate"}),
    "nash_md": ("nash_md", {"tau": TAU, "eta": 0.5}),
    "nash_md, last iterate": ("nash_md", {"tau": TAU, "eta": None, "eta_rule": "last_iterate"}),
}


@pytest.mark.parametrize("game", REFERENCE)
@pytest.mark.parametrize("method", METHODS)
def test_gaps_are_the_reference_numbers(method: str, game: str, play):
    spec, options = METHODS[method]
    report = play(spec, [find_game(game)], rounds=199, loss=options)
    expected = REFERENCE[game]
    assert np.array(report.gap_last)[T - 1] == pytest.approx(expected[f"{method} | last"], rel=1e-6)
    assert np.array(report.gap_average)[T - 1] == pytest.approx(expected[f"{method} | average"], rel=1e-6)
    if report.regularised is not None:
        # the reference computed small ones as a difference of numbers near 1
        found = np.array(report.regularised)[T - 1]
        assert found == pytest.approx(expected[f"{method} | regularised"], rel=1e-6, abs=1e-15)


PI_3 = {
    "onpo": (0.38402028, 0.29662048, 0.31935924),
    "sppo_exact": (0.36719083, 0.31019832, 0.32261084),
    "sppo": (0.36716798, 0.31021413, 0.32261788),
    "inpo": (0.36632179, 0.31075629, 0.32292192),
    "nash_md": (0.36633318, 0.31079793, 0.32286889),
}


@pytest.mark.parametrize("method", PI_3)
def test_the_third_policy_on_the_weighted_cycle(method: str, play):
    spec, options = METHODS[method]
    report = play(spec, [find_game("weighted_rps")], rounds=2, loss=options)
    assert report.last[0][2] == pytest.approx(PI_3[method], abs=6e-9)


@pytest.mark.parametrize("name", REFERENCE)
def test_three_forms_of_onpo_agree(name: str, play):
    game = find_game(name)
    u = np.log(game.start)
    trained, virtual = (play(spec, [game], rounds=60, loss={"eta": 0.5}) for spec in ("onpo", "onpo_virtual"))
    single = onpo_single(game.matrix, u, 61, 0.5)
    assert np.abs(trained.last[0] - np.exp(single)).max() < 1e-12
    assert np.abs(virtual.last[0] - np.exp(single)).max() < 1e-12
    assert np.abs(np.exp(onpo(game.matrix, u, 61, 0.5)) - np.exp(single)).max() < 1e-12


@pytest.mark.parametrize("name", REFERENCE)
def test_without_regulariser_and_optimism_methods_are_one(name: str, play):
    """INPO at tau 0, SPPO with the exact normaliser, Nash-MD at tau 0: mirror descent with the same step."""
    game = find_game(name)
    expected = np.exp(mirror(game.matrix, np.log(game.start), 31, 0.5))
    inpo = play("inpo", [game], rounds=30, loss={"tau": 0, "eta": 2.0})
    sppo = play("sppo_exact", [game], rounds=30, loss={"eta": 0.5})
    md = play("nash_md", [game], rounds=30, loss={"tau": 0, "eta": 0.5})
    for report in (inpo, sppo, md):
        assert np.abs(report.last[0] - expected).max() < 1e-12


@pytest.mark.parametrize("step", [0.05, 0.3, 1.0])
def test_one_step_inequality_of_nash_md(step: float, play):
    """KL(pi*, pi_{t+1}) <= (1 - eta tau) KL(pi*, pi_t) + 2 eta^2, and the closed form is the runner's path."""
    game = find_game("random10")
    report = play("nash_md", [game], rounds=40, loss={"tau": TAU, "eta": step})
    for before, after in zip(report.kl_regularised, report.kl_regularised[1:], strict=False):
        assert after <= (1 - step * TAU) * before + 2 * step**2 + 1e-12
    expected = np.exp(nash_md(game.matrix, np.log(game.start), 41, step, TAU))
    assert np.abs(report.last[0] - expected).max() < 1e-12


def test_the_large_steps_that_language_models_take_are_exact_too(play):
    """Log-ratios of hundreds of nats, and actions of probability 1e-80, on the specs as they are."""
    for name in REFERENCE:
        game = find_game(name)
        report = play("onpo", [game], rounds=3)
        expected = onpo(game.matrix, np.log(game.start), 4, 100.0)
        assert np.log(report.last[0]) == pytest.approx(np.array(expected), abs=1e-8)


def test_where_the_regularised_gap_is_reported_it_is_of_the_loss_own_tau(play):
    game = find_game("rps")
    report = play("inpo", [game], rounds=2, loss={"tau": 0.2, "eta": 2.0})
    assert report.tau == 0.2
    assert report.regularised[2] == regularised_gap(game.matrix, report.last[0][2], game.start, 0.2)
    assert play("onpo", [game], rounds=2, loss={"eta": 0.5}).to_dict()["regularised_gap"] == {"last": None}
