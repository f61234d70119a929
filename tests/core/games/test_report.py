from __future__ import annotations

import json

import numpy as np
import pytest

from nashtune.games import find_game
from nashtune.games.plot import draw
from nashtune.games.report import fitted_factor, fitted_slope


def test_the_fitted_slope_and_factor_of_known_curves():
    T = np.arange(1, 401)
    assert fitted_slope((3.0 / T).tolist()) == pytest.approx(-1.0, abs=1e-12)
    assert fitted_slope((3.0 / np.sqrt(T)).tolist()) == pytest.approx(-0.5, abs=1e-12)
    assert fitted_factor((0.9**T).tolist()) == pytest.approx(0.9, abs=1e-9)  # rounding, below 1e-13, is left out
    assert fitted_slope([0.1, 0.05, 0.03]) is None and fitted_factor([0.1, 0.05]) is None
    assert fitted_slope([0.0] * 50) is None


def test_index_0_is_the_start_and_the_average_is_of_probabilities(play):
    game = find_game("rps")
    report = play("onpo", [game], rounds=7, loss={"eta": 0.5})
    shown = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert shown["game"] == "rps" and shown["rounds"] == 7 and shown["spec"] == "onpo"
    last, average = np.array(shown["policy"]["last"]), np.array(shown["policy"]["average"])
    assert last.shape == average.shape == (8, 3)
    assert last[0] == pytest.approx(game.start) and average[0] == pytest.approx(game.start)
    assert average[7] == pytest.approx(last.mean(axis=0), abs=1e-15)
    for name in ("last", "average"):
        gaps = [2 * (game.matrix @ policy).max() - 1 for policy in np.array(shown["policy"][name])]
        assert shown["duality_gap"][name] == pytest.approx(gaps, abs=1e-15)
    assert shown["kl"]["start"][0] == 0.0 and shown["nash"] == pytest.approx([1 / 3] * 3)
    assert shown["bound"]["values"][0] == pytest.approx(2 * np.log(10) / 0.5 + 1.0)


def test_several_games_have_a_list_of_policies_each(play):
    report = play("inpo", [find_game("rps"), find_game("random10")], rounds=2, loss={"tau": 0.1, "eta": 2.0})
    shown = report.to_dict()
    assert shown["game"] == ["rps", "random10"]
    assert [len(policies[0]) for policies in shown["policy"]["last"]] == [3, 10]
    assert len(shown["regularised_gap"]["last"]) == 3 and len(shown["regularised_nash"]) == 2
    assert shown["tau"] == 0.1 and shown["bound"] is None


def test_what_is_not_as_in_a_run_is_said(play):
    game = find_game("rps")
    notes = play("onpo", [game], rounds=1).notes
    assert "replaced by exact expectation over the game: oracle (preference), sampler (policy)" in notes[0]
    assert "no bound on the average policy's gap is stated for these settings" in notes  # eta 100
    assert any("drawn from the start policy, once" in note for note in play("dpo", [game]).notes)
    assert any("is drawn no more" in note for note in play("sppo_exact", [game], rounds=3).notes)


def test_the_picture_is_a_png(play, tmp_path):
    many = [find_game(name) for name in ("rps", "random10", "bradley_terry:1,0")]
    for number, (games, rounds) in enumerate((([many[0]], 30), (many, 2))):
        path = tmp_path / f"{number}.png"
        draw(play("inpo", games, rounds=rounds, loss={"tau": 0.1, "eta": 2.0}), path)
        assert path.read_bytes().startswith(b"\x89PNG")
        assert [one.name for one in tmp_path.glob("*partial*")] == []
