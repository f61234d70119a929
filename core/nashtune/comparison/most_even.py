"""The mixture of greatest entropy among those that fulfil linear equations and inequalities: an interior-point method.

Legend: I = policies with weight, J = inequalities, E = equations, D = dimensions that the equations leave.
"""

from __future__ import annotations

import numpy as np

from nashtune.errors import CheckFailed
from nashtune.evaluation.estimate import Floats

FIRST, LAST, SHRINK = 1.0, 1e-11, 0.1
"""Weight of the barrier in front of the inequalities, in nats: below 1e-11 rounding would push mixtures through it."""
MOST_STEPS = 50
SETTLED = 1e-14
"""Squared length of the last Newton step in its own metric: twice what it gains in nats."""
ROUNDING = 1e-15


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # NaN, which no check of the result passes
def most_even(start_I: Floats, equations_EI: Floats, beaten_JI: Floats) -> Floats:
    """Probabilities of maximum entropy with the start's values of the equations, that no inequality exceeds (I,).

    Args:
        start_I: Where to begin: probabilities > 0 with beaten_JI @ p < 0.
        equations_EI: Keep equations_EI @ p.
        beaten_JI: Keep beaten_JI @ p <= 0.

    Raises:
        CheckFailed: the start is not inside.
        LinAlgError: the equations and inequalities leave too little room for the arithmetic.
    """
    if not np.isfinite(_objective(start_I, beaten_JI, FIRST)):
        raise CheckFailed(f"no mixture to begin with: {start_I.tolist()}")
    _, sizes, rows = np.linalg.svd(equations_EI)
    free_ID = rows[int((sizes > 1e-9).sum()) :].T
    p, barrier = start_I, FIRST
    while barrier > LAST:
        for _ in range(MOST_STEPS):
            room_J = -beaten_JI @ p
            slope_D = free_ID.T @ (np.log(p) + beaten_JI.T @ (barrier / room_J))
            curved_JI = beaten_JI / room_J[:, None]
            curvature_II = np.diag(1.0 / p) + barrier * curved_JI.T @ curved_JI
            step_I = -free_ID @ np.linalg.solve(free_ID.T @ curvature_II @ free_ID, slope_D)
            decrement = float(-step_I @ (free_ID @ slope_D))
            value = _objective(p, beaten_JI, barrier)
            size = 1.0
            while _objective(p + size * step_I, beaten_JI, barrier) > value - 0.1 * size * decrement + ROUNDING:
                size /= 2
            p = p + size * step_I
            if decrement < SETTLED:
                break
        barrier *= SHRINK
    return p


def _objective(p: Floats, beaten_JI: Floats, barrier: float) -> float:
    """Negative entropy and barrier; infinite outside."""
    room_J = -beaten_JI @ p
    if p.min() <= 0 or room_J.min(initial=1.0) <= 0:
        return float("inf")
    return float(p @ np.log(p) - barrier * np.log(room_J).sum())
