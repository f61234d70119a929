"""Bandits: prompts whose completions are a few arms with known rewards, and rewards that are only estimated.

Legend: n = arms of a prompt, K = members of an ensemble.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nashtune.errors import InputError
from nashtune.games.matrices import Array

SUM_TOLERANCE = 1e-6
"""Of the reference's probabilities."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arms:
    """One prompt.

    Args:
        name: For people.
        gold: True rewards r* (n,).
        sigma: Standard deviation of one estimate of each arm's reward, >= 0 (n,).
        reference: Probabilities of the reference, which is the policy before training too, > 0 (n,).
        estimate: The estimate R that the policy is trained on (n,).
        members: Scores of an ensemble's members, whose mean is the estimate (K, n); None without an ensemble.
    """

    name: str
    gold: Array
    sigma: Array
    reference: Array
    estimate: Array
    members: Array | None = None

    @property
    def size(self) -> int:
        """Number of arms."""
        return len(self.gold)

    @property
    def variance(self) -> Array:
        """What a controller is told of each arm: the members' sample variance (ddof 1), else σ² (n,)."""
        if self.members is None:
            known: Array = self.sigma**2
            return known
        sampled: Array = self.members.var(axis=0, ddof=1)
        return sampled


def make_arms(
    name: str,
    *,
    rewards: Sequence[float] | Array,
    sigma: Sequence[float] | Array,
    reference: Sequence[float] | Array,
    estimate: Sequence[float] | Array | None = None,
    members: Sequence[Sequence[float]] | Array | None = None,
) -> Arms:
    """Check a prompt's numbers.

    Args:
        name: For people, and for messages.
        rewards: True rewards, two arms at least.
        sigma: Standard deviation of an estimate of each, >= 0.
        reference: Probabilities > 0 that sum to 1 within 1e-6; they are normalised.
        estimate: Rewards that the policy is trained on; without it the members' mean, else the true rewards.
        members: One list of scores per member, two at least.

    Raises:
        InputError: says which list and which arm.
    """
    gold = _vector(name, "rewards", rewards, None)
    if len(gold) < 2:
        raise InputError(f"{name}: one arm leaves nothing to choose; give the rewards of at least two")
    deviation = _vector(name, "sigma", sigma, len(gold))
    if (deviation < 0).any():
        arm = int(np.argmax(deviation < 0))
        raise InputError(f"{name}: sigma of arm {arm} is {deviation[arm]:g}; a standard deviation is at least 0")
    policy = _vector(name, "reference", reference, len(gold))
    if (policy <= 0).any():
        arm = int(np.argmax(policy <= 0))
        raise InputError(
            f"{name}: reference of arm {arm} is {policy[arm]:g}; every probability must be above 0, as KL(π ‖ "
            "reference) is infinite otherwise"
        )
    if not math.isclose(policy.sum(), 1.0, abs_tol=SUM_TOLERANCE):
        raise InputError(f"{name}: reference sums to {policy.sum():g}, expected 1")
    heads = None if members is None else _members(name, members, len(gold))
    if estimate is not None and heads is not None:
        raise InputError(
            f"{name}: both 'estimate' and 'members'; the members' mean is the estimate, so give one of them"
        )
    if estimate is not None:
        trained_on = _vector(name, "estimate", estimate, len(gold))
    else:
        with np.errstate(over="ignore"):
            trained_on = gold if heads is None else heads.mean(axis=0)
    arms = Arms(
        name=name,
        gold=gold,
        sigma=deviation,
        reference=policy / policy.sum(),
        estimate=trained_on,
        members=heads,
    )
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(arms.estimate) & np.isfinite(arms.variance)
    if not finite.all():
        raise InputError(
            f"{name}: the estimate or the variance of arm {int(np.argmin(finite))} is too large for float64; give "
            "rewards in a larger unit"
        )
    return arms


def _members(name: str, members: Sequence[Sequence[float]] | Array, arms: int) -> Array:
    if not isinstance(members, Sequence | np.ndarray) or isinstance(members, str):
        raise InputError(f"{name}: members: expected one list of scores per member, found {members!r}")
    rows = [_vector(name, f"members[{k}]", row, arms) for k, row in enumerate(members)]
    if len(rows) < 2:
        raise InputError(f"{name}: {len(rows)} members; a variance takes at least two")
    return np.stack(rows)


def _vector(name: str, key: str, values: Sequence[float] | Array, arms: int | None) -> Array:
    try:
        vector: Array = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{name}: {key}: expected a list of numbers, one per arm: {error}") from error
    if vector.ndim != 1:
        raise InputError(f"{name}: {key}: expected a list of numbers, one per arm, found {_shape(vector)}")
    if arms is not None and len(vector) != arms:
        raise InputError(f"{name}: {key} has {len(vector)} numbers, and rewards {arms}; give one per arm")
    wrong = ~np.isfinite(vector)
    if wrong.any():
        arm = int(np.argmax(wrong))
        raise InputError(
            f"{name}: {key} of arm {arm} is {vector[arm]} (arms are counted from 0); expected a finite number"
        )
    return vector


def _shape(value: Array) -> str:
    return "a single number" if value.ndim == 0 else f"lists of shape {' x '.join(map(str, value.shape))}"
