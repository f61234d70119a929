"""Policies that are known in closed form when every completion of a prompt can be listed: a bandit's arms.

Every function works on the last axis, so that many reward draws are solved at once.
Legend: n = arms of a prompt, ... = prompts or draws.

Sources: the KL forms are the fixed points of R - β v log(π/π₀); the quadratic ones maximise the estimated reward at a
given distance from the reference, measured by the plain norm or by the rewards' covariance. All of them are derived
from the noise model of uncertainty-aware RLHF (arXiv:2410.23726), R = r* + N(0, σ²), and are not quoted from the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nashtune.games.matrices import Array

BISECTIONS = 1100
"""More than float64 needs from its largest to its smallest number: the search ends long before."""
RESOLVED = 1e-17
"""Width of the bracket, in what the policy can tell apart, at which it ends."""


def kl(policy: Array, reference: Array) -> Array:
    """KL(policy || reference) in nats over the last axis; an arm of probability 0 adds nothing."""
    ratio = np.log(np.where(policy > 0, policy, 1.0)) - np.log(reference)
    divergence: Array = np.where(policy > 0, policy * ratio, 0.0).sum(-1)
    return divergence


def vanilla(reward: Array, reference: Array, beta: float | Array) -> Array:
    """π₀ exp(R/β), normalised: the optimum of E[R] - β KL(π || π₀) (..., n).

    With R/v in place of R it is the form `precision`, which changes when a constant is added to R.
    """
    exponent = np.log(reference) + reward / beta
    policy = np.exp(exponent - exponent.max(-1, keepdims=True))
    normalised: Array = policy / policy.sum(-1, keepdims=True)
    return normalised


def weighted(reward: Array, reference: Array, coefficient: Array, *, shift: float = 0.0) -> tuple[Array, Array]:
    """π₀ exp((R - λ)/c - shift) with λ such that it sums to 1.

    Args:
        reward: R (..., n).
        reference: π₀ (..., n), > 0.
        coefficient: c = β v, each arm's own KL coefficient, > 0 (..., n).
        shift: 0 for the fixed point of a reward R - c log(π/π₀) that is held constant in the gradient (`detached`); 1
            for the maximiser of E[R - c log(π/π₀)] (`exact`).

    Returns:
        The policy (..., n) and λ (...).
    """
    log_policy, level = log_weighted(reward, reference, coefficient, shift=shift)
    return np.exp(log_policy), level


def log_weighted(reward: Array, reference: Array, coefficient: Array, *, shift: float = 0.0) -> tuple[Array, Array]:
    """`weighted` with the log of the policy, which does not underflow."""
    reward, c = np.broadcast_arrays(reward, np.asarray(coefficient, dtype=np.float64))
    # λ at which the arm alone would have probability 1: where c is tiny, λ itself is too coarse to tell its probability
    alone = reward + c * (np.log(reference) - shift)
    pole = alone.max(-1, keepdims=True)

    def log_policy(distance: Array) -> Array:
        powers: Array = (alone - pole - distance[..., None]) / c
        return powers

    distance = _root(lambda at: np.exp(log_policy(at)), c.max(-1) * math.log(reward.shape[-1]), c.min(-1))
    return _log_normalised(log_policy(distance)), pole[..., 0] + distance


def reverse(reward: Array, reference: Array, coefficient: Array) -> tuple[Array, Array]:
    """π₀ / (1 - (R - λ)/c) with λ such that it sums to 1: the optimum of E[R] - c KL(π₀ || π).

    A KL penalty in the loss with the estimator k3 has this fixed point, as its gradient is that of the reverse KL.

    Args:
        reward: R (..., n).
        reference: π₀ (..., n), > 0.
        coefficient: c, > 0 (..., n).

    Returns:
        The policy (..., n) and λ (...).
    """
    log_policy, level = log_reverse(reward, reference, coefficient)
    return np.exp(log_policy), level


def log_reverse(reward: Array, reference: Array, coefficient: Array) -> tuple[Array, Array]:
    """`reverse` with the log of the policy."""
    reward, c = np.broadcast_arrays(reward, np.asarray(coefficient, dtype=np.float64))
    alone = reward - c
    pole = alone.max(-1, keepdims=True)
    gap = pole - alone

    def policy(distance: Array) -> Array:
        with np.errstate(divide="ignore"):
            parts: Array = reference * c / (distance[..., None] + gap)
        return parts

    distance = _root(policy, c.max(-1), (reference * c).min(-1))
    return _log_normalised(np.log(policy(distance))), pole[..., 0] + distance


def sphere(reward: Array) -> Array:
    """Direction of the step that gains most estimated reward at ||π - π₀||₂ = const: blind to the variance (..., n)."""
    direction: Array = reward - reward.mean(-1, keepdims=True)
    return direction


def ellipsoid(reward: Array, variance: Array) -> Array:
    """The same at (π - π₀)' Σ (π - π₀) = const, Σ = diag(variance): uncertain arms move little (..., n)."""
    weight = 1.0 / variance
    level = (weight * reward).sum(-1, keepdims=True) / weight.sum(-1, keepdims=True)
    direction: Array = weight * (reward - level)
    return direction


def at_distance(direction: Array, reference: Array, radius: float) -> Array:
    """π₀ + radius d / ||d||₂ (..., n); no policy any more where the radius takes an arm below 0."""
    stepped: Array = reference + radius * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return stepped


def _root(policy: Callable[[Array], Array], high: Array, unit: Array) -> Array:
    """Distance in [0, high] at which the policy's sum, which falls as the distance grows, is 1 (...)."""
    low, high = np.zeros_like(high), high.copy()
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if ((middle <= low) | (middle >= high) | (high - low <= RESOLVED * unit)).all():
            break
        above = policy(middle).sum(-1) > 1.0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(high, dtype=np.float64)


def _log_normalised(log_policy: Array) -> Array:
    top = log_policy.max(-1, keepdims=True)
    normalised: Array = log_policy - top - np.log(np.exp(log_policy - top).sum(-1, keepdims=True))
    return normalised
