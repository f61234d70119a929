"""Where a policy-gradient loss comes to rest on a bandit: all arms of a prompt are pushed alike.

Newton's method on c_y(u) = λ for all arms y, log Σ exp u = 0, with u the log-probs. Solved for the coefficients
themselves: π_y (c_y - λ), the gradient, vanishes at every vertex of the simplex too. Up to what is the same for all
arms of a prompt, which λ takes up, a coefficient depends on the arm's own log-prob alone, so that two differences of
coefficients give the whole derivative, for any number of arms, prompts and draws.
Legend: X = prompts, n = arms of the largest prompt.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nashtune.bandits.table import Table
from nashtune.errors import CheckFailed
from nashtune.games.matrices import Array

Coefficient = Callable[[Array], Array]
"""Log-probs (X, n) -> c (X, n); what is outside of the table is ignored."""

MOST_STEPS = 300
DIFFERENCE = 1e-3
"""Step of the central differences, in nats: their error is of order 1e-6 of the derivative, and only slows Newton."""
SETTLED = 1e-11
"""In nats, relative: a correction below it ends the search."""
ROUNDING = 2e-15
"""Of a coefficient, relative to the largest of its prompt."""
CLOSE = 1e-7
"""Spread of a prompt's coefficients, relative to the largest, below which a full step is taken without looking."""
LEAST_SLOPE = 1e-8
"""Share of an arm's derivative at the reference below which it is not believed: that of k3 vanishes on the way up."""
BLURRED = 1e5
"""Multiple of its rounding below which a slope is known to few digits."""
AGREE = 0.5
"""Relative difference of two measurements of a derivative above which it is rounding, and no derivative."""


def optimum(coefficient: Coefficient, table: Table, start: Array | None = None) -> Array:
    """Log-probs at which the coefficients of each prompt are equal (X, n); -inf outside.

    Args:
        coefficient: Of the loss.
        table: The prompts.
        start: Log-probs to start from, where a closed form says that there is an optimum (X, n), finite where the table
            has arms; None for the reference, where every arm must be seen to be held back.

    Raises:
        CheckFailed: nothing holds the policy back, or Newton's method does not find the place.
    """
    held = table.held
    u = np.where(held, table.log_reference, 0.0)
    c = coefficient(u)
    steepest = slopes(coefficient, u, held)
    rounding = slope_rounding(c)
    floor = np.zeros_like(rounding)
    if start is not None:
        u = np.where(held, start, 0.0)
        c = coefficient(u)
        # an arm may be held too weakly to be measured: the closed form says where it is
        floor = -np.maximum(rounding, slope_rounding(c))
    elif _flat(coefficient, u, steepest, rounding, held):
        raise CheckFailed(
            "no finite optimum: the push on an arm does not fall as its probability grows, so that no KL penalty holds "
            "the policy back (the estimator k1 in the loss has no gradient on average, k2 and k3 in the reward none at "
            "the reference; or the rewards are so large beside β that rounding hides it)"
        )
    for _ in range(MOST_STEPS):
        slope = np.minimum(np.minimum(slopes(coefficient, u, held), LEAST_SLOPE * steepest), floor)
        step = _step(u, c, slope, held)
        u, c = _damped(coefficient, u, c, step, held)
        known = ROUNDING * np.abs(c).max(-1, keepdims=True) / -slope  # no log-prob is known better than this
        if (np.abs(step) <= SETTLED * (1.0 + np.abs(u)) + known).all():
            return np.where(held, u - _log_sum(u, held), -np.inf)
    raise CheckFailed(
        f"Newton's method does not find the optimum: after {MOST_STEPS} steps log-probs still move by "
        f"{float(np.abs(step).max()):.1e} nats"
    )


def gradient_run(coefficient: Coefficient, table: Table, *, step: float, iterations: int) -> Array:
    """Log-probs after exact policy-gradient steps on logits, θ += step π (c - E_π c), from the reference (X, n)."""
    held = table.held
    logits = np.where(held, table.log_reference, 0.0)
    for _ in range(iterations):
        u = logits - _log_sum(logits, held)
        policy = np.where(held, np.exp(u), 0.0)
        c = coefficient(u)
        logits = logits + step * policy * (c - (policy * c).sum(-1, keepdims=True))
    return np.where(held, logits - _log_sum(logits, held), -np.inf)


def weakly_held(coefficient: Coefficient, table: Table) -> bool:
    """Whether some arm's slope at the reference is known to few digits, which Newton's method then never gets past."""
    u = np.where(table.held, table.log_reference, 0.0)
    slope = slopes(coefficient, u, table.held)
    # a nat on the way the coefficients are as large as the steepest slope
    rounding = np.maximum(slope_rounding(coefficient(u)), slope_rounding(np.where(table.held, slope, 0.0)))
    return bool((table.held & (slope >= -BLURRED * rounding)).any())


def slope_rounding(c: Array) -> Array:
    """What rounding of the coefficients (X, n) may make of a slope (X, 1)."""
    rounding: Array = ROUNDING * np.abs(c).max(-1, keepdims=True) / DIFFERENCE
    return rounding


def _flat(coefficient: Coefficient, u: Array, slope: Array, rounding: Array, held: NDArray[np.bool_]) -> bool:
    """Whether some arm's push does not fall with its log-prob by more than rounding.

    Coefficients may be differences of much larger rewards, whose rounding they do not show: a second difference does.
    """
    again = slopes(coefficient, u, held, 2.0 * DIFFERENCE)
    unsure = np.abs(slope - again) > AGREE * np.maximum(np.abs(slope), np.abs(again))
    return bool((held & ((np.maximum(slope, again) >= -rounding) | unsure)).any())


def slopes(coefficient: Coefficient, u: Array, held: NDArray[np.bool_], difference: float = DIFFERENCE) -> Array:
    """dc_y/du_y less what the arm's log-prob does to the others of its prompt (X, n); -1 outside of the table."""
    odd = np.broadcast_to(np.arange(u.shape[1]) % 2 == 1, u.shape)
    slope = np.zeros(u.shape)
    for moved in (odd, ~odd):
        shift = np.where(moved, difference, 0.0)
        change = (coefficient(u + shift) - coefficient(u - shift)) / (2.0 * difference)
        others = held & ~moved
        common = np.where(others, change, 0.0).sum(-1, keepdims=True) / others.sum(-1, keepdims=True)
        slope = np.where(moved, change - common, slope)
    return np.where(held, slope, -1.0)


def _step(u: Array, c: Array, slope: Array, held: NDArray[np.bool_]) -> Array:
    """Newton's step (X, n)."""
    total = _log_sum(u, held)
    share = np.where(held, np.exp(u - total) / slope, 0.0)
    level = ((share * c).sum(-1, keepdims=True) - total) / share.sum(-1, keepdims=True)
    step: Array = np.where(held, (level - c) / slope, 0.0)
    return step


def _damped(coefficient: Coefficient, u: Array, c: Array, step: Array, held: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Log-probs and coefficients after the step, halved prompt by prompt until coefficients come nearer one another."""

    def distance(values: Array) -> Array:
        far: Array = np.ptp(np.where(held, values, values[:, :1]), axis=-1, keepdims=True)
        return far

    before = distance(c)
    close = CLOSE * (1.0 + np.abs(c).max(-1, keepdims=True))
    share = np.ones(before.shape)
    while True:
        trial = u + share * step
        with np.errstate(over="ignore", invalid="ignore"):
            found = coefficient(trial)
            nearer = distance(found) <= before * (1.0 - 1e-4 * share) + close
        if (nearer | (share < 1e-12)).all():
            return trial, found
        share = np.where(nearer, share, 0.5 * share)


def _log_sum(u: Array, held: NDArray[np.bool_]) -> Array:
    """Log Σ exp u of each prompt (X, 1)."""
    inside = np.where(held, u, -np.inf)
    top = inside.max(-1, keepdims=True)
    total: Array = top + np.log(np.exp(inside - top).sum(-1, keepdims=True))
    return total
