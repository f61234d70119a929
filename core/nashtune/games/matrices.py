"""Preference matrices: a game, and families of them.

P[i, j] is the probability that action i beats action j; P + P^T = 1. Legend: n = actions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nashtune.errors import InputError

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
