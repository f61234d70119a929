"""Preference matrices: the built-in games.

P[i, j] is the probability that action i beats action j; P + P^T = 1. Legend: n = actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nashtune.errors import InputError, nearest

Array = NDArray[np.float64]

TOLERANCE = 1e-9
"""Of P + P^T = 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Game:
    """One prompt's preference game.

    Args:
        name: For people.
        matrix: P(i beats j) (n, n).
        start: The policy before training, which is the reference too (n,): every probability > 0.
    """

    name: str
    matrix: Array
    start: Array

    @property
    def size(self) -> int:
        """Number of actions."""
        return len(self.start)

    @property
    def divergence(self) -> float:
        """D = max over policies of KL(policy || start) = -log of the start's smallest probability, in nats."""
        return float(-np.log(self.start.min()))


def make_game(name: str, matrix: Array, start: Sequence[float] | Array | None = None) -> Game:
    """Check a matrix and a start policy.

    Args:
        name: For people, and for messages.
        matrix: P (n, n).
        start: Probabilities (n,); uniform where None.

    Raises:
        InputError: the matrix is no preference matrix, or the start no policy with full support; says which entry.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        shape = " x ".join(map(str, matrix.shape)) or "a single number"
        raise InputError(f"{name}: expected a square matrix of P(row beats column), found {shape}")
    _refuse_entries(name, matrix, ~np.isfinite(matrix), "is not a finite number")
    _refuse_entries(name, matrix, (matrix < 0) | (matrix > 1), "is no probability; expected 0 to 1")
    diagonal = np.eye(len(matrix), dtype=bool) & (np.abs(matrix - 0.5) > TOLERANCE)
    _refuse_entries(name, matrix, diagonal, "must be 0.5: an action ties with itself")
    odd = np.argwhere(np.abs(matrix + matrix.T - 1.0) > TOLERANCE)
    if len(odd):
        i, j = map(int, odd[0])
        raise InputError(
            f"{name}: P[{i},{j}] + P[{j},{i}] is {matrix[i, j] + matrix[j, i]:g}, expected 1: one of two wins "
            "(actions are counted from 0)"
        )
    n = len(matrix)
    policy = np.full(n, 1.0 / n) if start is None else np.asarray(start, dtype=np.float64)
    return Game(name=name, matrix=matrix, start=_check_start(name, policy, n))


def _refuse_entries(name: str, matrix: Array, wrong: NDArray[np.bool_], why: str) -> None:
    found = np.argwhere(wrong)
    if len(found):
        i, j = map(int, found[0])
        raise InputError(f"{name}: P[{i},{j}] is {matrix[i, j]:g} (actions are counted from 0): {why}")


def _check_start(name: str, start: Array, n: int) -> Array:
    if start.shape != (n,):
        raise InputError(f"{name}: the start policy has {start.size} probabilities, and the game {n} actions")
    if not np.isfinite(start).all() or (start <= 0).any():
        raise InputError(
            f"{name}: the start policy {start.tolist()} needs probabilities > 0 only: no multiplicative method brings "
            "back an action of probability 0"
        )
    total = float(start.sum())
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise InputError(f"{name}: the start policy sums to {total:g}, expected 1")
    normalised: Array = start / total
    return normalised


def from_upper(upper: Array) -> Array:
    """The preference matrix with the strict upper triangle of `upper` (n, n)."""
    above = np.triu(upper, 1)
    below = np.tril(1.0 - upper.T, -1)
    matrix: Array = above + below + 0.5 * np.eye(len(upper))
    return matrix


def cycle(p12: float, p23: float, p31: float) -> Array:
    """Three actions in a cycle: 0 beats 1, 1 beats 2, 2 beats 0, with these probabilities (3, 3)."""
    return from_upper(np.array([[0.5, p12, 1.0 - p31], [0.0, 0.5, p23], [0.0, 0.0, 0.5]]))


def condorcet(n: int) -> Array:
    """Action 0 beats every other one for certain, all others tie: hard on the constants of a bound (n, n)."""
    upper = np.full((n, n), 0.5)
    upper[0, 1:] = 1.0
    return from_upper(upper)


def bradley_terry(scores: Sequence[float]) -> Array:
    """A transitive game: P(i beats j) = sigmoid(s_i - s_j); its Nash policy is the best action (n, n)."""
    s = np.asarray(scores, dtype=np.float64)
    return from_upper(1.0 / (1.0 + np.exp(s[None, :] - s[:, None])))


def _weighted_rps(_: str) -> Game:
    return make_game("weighted_rps", cycle(0.9, 0.7, 0.6))


def _rps(_: str) -> Game:
    # From the uniform policy, which is its Nash policy, nothing would move.
    return make_game("rps", cycle(1.0, 1.0, 1.0), (0.6, 0.3, 0.1))


def _random10(_: str) -> Game:
    return make_game("random10", from_upper(np.random.default_rng(0).random((10, 10))))


def _condorcet(size: str) -> Game:
    if not size:
        size = "10"
    if not size.isdecimal() or not 2 <= int(size) <= 1000:
        raise InputError(f"--game condorcet:{size}: expected the number of actions, 2 to 1000, as in condorcet:10")
    return make_game(f"condorcet:{size}", condorcet(int(size)))


def _bradley_terry(scores: str) -> Game:
    try:
        values = [float(part) for part in (scores or "2,1,0").split(",")]
    except ValueError:
        raise InputError(
            f"--game bradley_terry:{scores}: expected scores, as in bradley_terry:2,1,0; the best action wins most"
        ) from None
    return make_game(f"bradley_terry:{scores}" if scores else "bradley_terry", bradley_terry(values))


@dataclass(frozen=True)
class BuiltIn:
    """A game known by name.

    Args:
        make: From what follows the name after a colon ("" where nothing does).
        summary: What it is for.
        argument: What may follow the name, for people; "" where nothing may.
    """

    make: Callable[[str], Game]
    summary: str
    argument: str = ""


GAMES: dict[str, BuiltIn] = {
    "weighted_rps": BuiltIn(_weighted_rps, "three actions in a cycle of .9, .7, .6; uniform start"),
    "rps": BuiltIn(_rps, "rock, paper, scissors; start .6, .3, .1"),
    "random10": BuiltIn(_random10, "ten actions, random preferences; uniform start"),
    "condorcet": BuiltIn(_condorcet, "one action beats all others, which tie; uniform start", "SIZE"),
    "bradley_terry": BuiltIn(_bradley_terry, "transitive, by scores; uniform start", "SCORES"),
}


def find_game(source: str) -> Game:
    """A built-in game by name, or one from a file.

    Args:
        source: A name, where the game has a size or scores with these after a colon; or a path that ends in .csv,
            .npy or .json.

    Raises:
        InputError: there is no such game, or the file holds none.
    """
    from nashtune.games.files import SUFFIXES, read_game

    if source.lower().endswith(SUFFIXES):
        return read_game(source)
    name, colon, argument = source.partition(":")
    if name not in GAMES:
        raise InputError(
            f"--game {source}: no such game{nearest(name, GAMES)}; a file's name ends in {', '.join(SUFFIXES)}"
        )
    if colon and not GAMES[name].argument:
        raise InputError(f"--game {source}: {name} takes nothing after its name")
    return GAMES[name].make(argument)
