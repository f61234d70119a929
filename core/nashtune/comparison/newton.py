"""Newton's method on many small convex problems at once, one in each row.

Legend: R = problems, D = unknowns of one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nashtune.errors import CheckFailed
from nashtune.evaluation.estimate import Floats

Look = Callable[[Floats], tuple[Floats, Floats]]
"""Unknowns (R, D) -> objective (R,) and Newton's step (R, D), which is to be subtracted."""

MOST_STEPS = 500
SETTLED = 1e-7
"""The last step: the error after it is about its square."""
ROUNDING = 1e-12
"""Share of the objective by which it may rise, as near the minimum its own rounding hides a fall."""


def minimise(look: Look, start_RD: Floats) -> Floats:
    """The minimisers (R, D); a step that makes its row worse is halved until it does not.

    Args:
        look: Of strictly convex objectives that have a minimum.
        start_RD: Where to begin.

    Raises:
        CheckFailed: a row did not settle.
    """
    u_RD, size_R1 = start_RD, np.ones((len(start_RD), 1))
    value_R, step_RD = look(u_RD)
    for _ in range(MOST_STEPS):
        if np.abs(step_RD).max(initial=0.0) < SETTLED:
            return u_RD - step_RD
        trial_RD = u_RD - size_R1 * step_RD
        trial_R, next_RD = look(trial_RD)
        better_R1 = (trial_R <= value_R + ROUNDING * np.abs(value_R))[:, None]
        u_RD, step_RD = np.where(better_R1, trial_RD, u_RD), np.where(better_R1, next_RD, step_RD)
        value_R = np.where(better_R1[:, 0], trial_R, value_R)
        size_R1 = np.where(better_R1, 1.0, size_R1 / 2)
    raise CheckFailed(f"Newton's method did not settle in {MOST_STEPS} steps")
