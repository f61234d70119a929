"""Duality gaps and Nash policies of a preference game, in float64.

Legend: n = actions. Policies are probabilities (n,); P is the preference matrix (n, n); A = P - 1/2.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from nashtune.errors import CheckFailed
from nashtune.games.matrices import Array

NEWTON_STEPS = 100
LARGEST_RATIO = 0.999
"""Of one tau to the one before, on the way to a small one; closer to 1 the search has failed."""
RESIDUAL = 1e-10
"""What a regularised Nash policy's fixed-point equation may be off by, in nats."""


def normalise(u: Array) -> Array:
    """Log-probs from logits (n,)."""
    top = u.max()
    return cast(Array, u - (top + np.log(np.exp(u - top).sum())))


def kl(p: Array, q: Array) -> float:
    """KL(p || q), in nats; infinite where q lacks an action of p."""
    held = p > 0
    with np.errstate(divide="ignore"):
        return float((p[held] * (np.log(p[held]) - np.log(q[held]))).sum())


def duality_gap(P: Array, policy: Array) -> float:
    """max_a J(a, pi) - min_b J(pi, b) = 2 max_y P(y > pi) - 1, in [0, 1]; twice the exploitability."""
    return float(2.0 * (P @ policy).max() - 1.0)


def regularised_gap(P: Array, policy: Array, reference: Array, tau: float) -> float:
    """Duality gap of J_tau(a, b) = a^T P b - tau KL(a || ref) + tau KL(b || ref); 0 only at its Nash policy.

    Args:
        P: Preference matrix.
        policy: The policy.
        reference: The reference, with full support.
        tau: Weight of the KL divergence, > 0.
    """
    # 2 {tau log sum ref exp(r/tau) + tau KL(pi || ref)} - 1 with r = P pi, without its cancellation: pi r is 1/2
    best_response = normalise(np.log(reference) + (P @ policy) / tau)
    held = policy > 0
    x = np.log(policy[held]) - best_response[held]
    # p log(p/q) - p + q, whose sum is the KL divergence, for x = log(p/q); its series near 0 keeps the digits
    terms = np.where(np.abs(x) < 1e-3, x**2 / 2 - x**3 / 6 + x**4 / 24 - x**5 / 120, x + np.expm1(-x))
    return float(2.0 * tau * ((policy[held] * terms).sum() + np.exp(best_response[~held]).sum()))


def nash(P: Array) -> Array:
    """A Nash policy, by linear programming: max v such that P^T pi >= v. It need not be the only one."""
    from scipy.optimize import linprog

    n = len(P)
    cost = np.zeros(n + 1)
    cost[-1] = -1.0
    found = linprog(
        cost,
        A_ub=np.hstack([-P.T, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        A_eq=np.r_[np.ones(n), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
        method="highs",
    )
    if not found.success:
        raise CheckFailed(f"the linear program of the Nash policy failed: {found.message}")
    policy = np.clip(found.x[:n], 0.0, None)
    return cast(Array, policy / policy.sum())


def regularised_nash(P: Array, reference: Array, tau: float) -> Array:
    """The Nash policy of the regularised game: pi = softmax(log ref + P pi / tau).

    The fixed-point iteration itself diverges for small tau. Newton's method solves the equation for a large tau first,
    then for smaller and smaller ones, each from the last one's solution, in steps as large as it can follow.

    Raises:
        CheckFailed: the equation could not be solved to a residual of 1e-10 nats.
    """
    log_ref = np.log(reference)
    level, ratio = max(tau, 1.0), 0.5
    u, residual = _solve(P, log_ref, level, log_ref)
    while level > tau and residual < RESIDUAL and ratio < LARGEST_RATIO:
        lower = max(tau, level * ratio)
        trial, size = _solve(P, log_ref, lower, u)
        if size < RESIDUAL:
            u, level, ratio = trial, lower, max(0.5, ratio**2)
        else:
            ratio = ratio**0.5
    if level > tau or not residual < RESIDUAL:
        raise CheckFailed(f"the regularised Nash policy for tau = {tau:g} was not found; a larger tau is easier")
    return cast(Array, np.exp(u))


def _solve(P: Array, log_ref: Array, tau: float, u: Array) -> tuple[Array, float]:
    """Damped Newton on u - normalise(log ref + P e^u / tau), from u: log-probs (n,) and the residual, in nats."""

    def look(u: Array) -> tuple[Array, Array, float]:
        z = normalise(log_ref + P @ np.exp(u) / tau)
        return z, u - z, float(np.abs(u - z).max())

    n = len(u)
    z, residual, size = look(u)
    for _ in range(NEWTON_STEPS):
        centre = np.eye(n) - np.outer(np.ones(n), np.exp(z))
        step = np.linalg.solve(np.eye(n) - centre @ (P / tau) * np.exp(u)[None, :], residual)
        scale = 1.0
        while scale > 1e-6:
            trial = normalise(u - scale * step)
            z_trial, residual_trial, size_trial = look(trial)
            if size_trial < size:
                break
            scale /= 2.0
        else:
            break  # rounding is reached: nothing gets better
        u, z, residual, size = trial, z_trial, residual_trial, size_trial
    return u, size
