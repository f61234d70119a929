"""A preference matrix as an oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nashtune.errors import InputError
from nashtune.games.find import find_game
from nashtune.oracles.matrix import MatrixOracle

ANSWERS = ["rock", "paper", "scissors"]


def test_every_entry_is_the_game_s():
    oracle = MatrixOracle(game="weighted_rps", answers=ANSWERS)
    oracle.prepare()
    first, second = ([[a, b][side] for a in ANSWERS for b in ANSWERS] for side in (0, 1))
    p = oracle.compare(["?"] * 9, first, second)
    assert p.dtype == torch.float64
    np.testing.assert_array_equal(p.view(3, 3).numpy(), find_game("weighted_rps").matrix)


def test_spaces_at_the_ends_do_not_count():
    oracle = MatrixOracle(game="rps", answers=ANSWERS)
    assert torch.equal(oracle.compare(["?"], [" rock\n"], ["paper"]), oracle.compare(["?"], ["rock"], ["paper"]))


def test_a_game_from_a_file(tmp_path):
    (tmp_path / "game.csv").write_text("0.5,0.8\n0.2,0.5\n")
    oracle = MatrixOracle(game=str(tmp_path / "game.csv"), answers=["a", "b"])
    assert oracle.compare(["?"], ["a"], ["b"]).tolist() == [0.8]


def test_an_answer_without_an_action_is_named():
    with pytest.raises(InputError, match="the completion 'rok' stands for no action; did you mean 'rock'"):
        MatrixOracle(game="rps", answers=ANSWERS).compare(["?"], ["rok"], ["rock"])


@pytest.mark.parametrize(
    ("game", "answers", "words"),
    [
        ("rps", ["a", "b"], "2 answers for a game of 3 actions"),
        ("rpz", ANSWERS, "oracle.game: rpz: no such game; did you mean 'rps'"),
        ("rps", ["a", "a ", "b"], "'a' stands for two actions"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_run(game, answers, words):
    with pytest.raises(InputError) as caught:
        MatrixOracle(game=game, answers=answers).prepare()
    assert words in str(caught.value)
