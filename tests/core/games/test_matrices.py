from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nashtune.errors import InputError
from nashtune.games.find import GAMES, find_game
from nashtune.games.matrices import make_game


@pytest.mark.parametrize("name", [*GAMES, "condorcet:3", "bradley_terry:3,1,0,-2"])
def test_one_of_two_wins_and_the_start_has_full_support(name: str):
    game = find_game(name)
    assert np.abs(game.matrix + game.matrix.T - 1.0).max() < 1e-15
    assert (game.matrix >= 0).all() and (np.diag(game.matrix) == 0.5).all()
    assert game.start.sum() == pytest.approx(1.0, abs=1e-15) and (game.start > 0).all()


def test_the_matrices_are_the_ones_that_reference_numbers_were_computed_on():
    weighted, cyclic, ten = (find_game(name).matrix for name in ("weighted_rps", "rps", "random10"))
    assert (weighted[0, 1], weighted[1, 2], weighted[2, 0]) == pytest.approx((0.9, 0.7, 0.6), abs=1e-15)
    assert (cyclic[0, 1], cyclic[1, 2], cyclic[2, 0]) == (1.0, 1.0, 1.0)
    assert find_game("rps").start.tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert ten[0, 1] == pytest.approx(0.269786713764, abs=5e-13)
    assert ten[8, 9] == 0.7290151170763094
    assert ten[np.triu_indices(10, 1)].sum() == pytest.approx(24.99186864958211, abs=1e-13)


def test_condorcet_and_bradley_terry():
    one = find_game("condorcet:4").matrix
    assert one[0].tolist() == [0.5, 1.0, 1.0, 1.0] and (one[1:, 1:] == 0.5).all()
    assert find_game("condorcet").size == 10
    assert find_game("bradley_terry:1,0").matrix[0, 1] == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert find_game("rps").divergence == pytest.approx(-np.log(0.1))


MINE = [[0.5, 0.9, 0.4], [0.1, 0.5, 0.7], [0.6, 0.3, 0.5]]


def test_the_same_game_from_csv_npy_and_json(tmp_path: Path):
    (tmp_path / "mine.csv").write_text("\n".join(",".join(map(str, row)) for row in MINE) + "\n\n")
    np.save(tmp_path / "mine.npy", np.array(MINE))
    (tmp_path / "mine.json").write_text(json.dumps(MINE))
    for suffix in ("csv", "npy", "json"):
        game = find_game(str(tmp_path / f"mine.{suffix}"))
        assert game.matrix.tolist() == MINE and game.name == "mine" and game.start.tolist() == [1 / 3] * 3


def test_a_json_file_may_bring_start_and_name(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"matrix": MINE, "start": [0.5, 0.25, 0.25], "name": "dice"}))
    game = find_game(str(path))
    assert game.name == "dice" and game.start.tolist() == [0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.5, 0.9]], "expected a square matrix of P(row beats column), found 1 x 2"),
        ([[0.5, float("nan")], [0.1, 0.5]], "P[0,1] is nan (actions are counted from 0): is not a finite number"),
        ([[0.5, 1.2], [-0.2, 0.5]], "P[0,1] is 1.2 (actions are counted from 0): is no probability"),
        ([[0.5, 0.9], [0.2, 0.5]], "P[0,1] + P[1,0] is 1.1, expected 1"),
        ([[0.5, 0.9], [0.1, 0.4]], "P[1,1] is 0.4 (actions are counted from 0): must be 0.5"),
    ],
)
def test_what_is_no_preference_matrix_is_refused_with_the_entry(matrix, message: str):
    with pytest.raises(InputError) as error:
        make_game("mine", np.array(matrix))
    assert message in str(error.value) and str(error.value).startswith("mine: ")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ([0.5, 0.5], "has 2 probabilities, and the game 3 actions"),
        ([0.5, 0.5, 0.0], "needs probabilities > 0"),
        ([0.5, 0.2, 0.2], "sums to 0.9"),
    ],
)
def test_a_start_that_is_no_policy_is_refused(start, message: str):
    with pytest.raises(InputError, match=message):
        make_game("mine", np.array(MINE), start)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("words.csv", "a,b\n1,2\n", "words.csv:1: 'a' is not a number; the file has no header"),
        ("ragged.csv", "0.5,0.9\n0.1\n", "expected numbers in rows of equal length"),
        ("broken.json", "{", "is not JSON"),
        ("odd.json", '{"matrx": 1}', "did you mean 'matrix'"),
        ("no.json", '{"start": [1]}', "'matrix' is missing"),
        ("text.json", '{"matrix": [["a"]]}', "expected numbers"),
        ("text.npy", "no array", "is not an NPY file of numbers"),
    ],
)
def test_files_that_hold_no_game_are_refused(name: str, content: str | None, message: str, tmp_path: Path):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as error:
        find_game(str(path))
    assert message in str(error.value) and name in str(error.value)


def test_an_npy_file_is_never_unpickled(tmp_path: Path):
    np.save(tmp_path / "evil.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(InputError, match="is not an NPY file of numbers"):
        find_game(str(tmp_path / "evil.npy"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rsp", "did you mean 'rps'"),
        ("rps:3", "rps takes nothing after its name"),
        ("condorcet:x", "expected the number of actions"),
        ("bradley_terry:1,b", "expected scores"),
    ],
)
def test_unknown_games_are_refused(name: str, message: str):
    with pytest.raises(InputError, match=message):
        find_game(name)
