"""What theory says of a bandit beside a spec's own optimum: closed forms at the same β, and exact risks.

Legend: X = prompts, n = arms of the largest prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nashtune.bandits import closed_forms
from nashtune.bandits.bandit import Arms
from nashtune.bandits.coefficients import Coefficients
from nashtune.bandits.optimum import slopes
from nashtune.bandits.risk import ellipsoid_risk, sphere_risk
from nashtune.bandits.table import Table
from nashtune.games.matrices import Array

ALIKE = 1e-3
"""Relative difference below which slopes are equal: they are differences of coefficients, and a loss's scale moves a
little with the policy where it is that of a whole batch."""
MATCH_DRAWS = 10_000
LINEAR = "π₀ exp((R − λ)/β)"
REVERSE = "π₀ / (1 − (R − λ)/β)"

Form = Callable[[Table], "tuple[Array, Array | None]"]
"""Prompts -> policy (X, n) and, where there is one, λ of each (X,)."""


@dataclass(frozen=True, kw_only=True)
class OwnForm:
    """The closed form that a spec's loss and KL controller have.

    Args:
        name: The formula.
        policy: Probabilities (X, n).
        level: λ of each prompt (X,).
    """

    name: str
    policy: Array
    level: Array


def own_form(coefficients: Coefficients) -> OwnForm | None:
    """The closed form from the controller's β and reward, where the loss pushes as one of the known forms does.

    It is recognised by what the loss does and not by its name: the push on an arm is a (R - b h) + const with the same
    a for all arms of a prompt, or a R - b (1 - exp(-h)), h = log π/π₀.

    Returns:
        None where the loss does something else.
    """
    table, beta_S = coefficients.table, coefficients.beta_S
    if beta_S is None:
        return None
    held = table.held
    reference = np.where(held, table.log_reference, 0.0)
    reward, beta = table.padded(coefficients.score), np.where(held, table.padded(beta_S), 1.0)
    push, here, there = (
        coefficients(reference),
        slopes(coefficients, reference, held),
        slopes(coefficients, reference + 0.5, held),
    )
    strength = -here / beta
    first = _rounded(strength[:, :1])
    if (first <= 0).any():
        return None
    centred_reward, centred_push = (_centred(values, held) for values in (reward, push))
    square = (centred_reward**2).sum(-1, keepdims=True)
    scale = (centred_reward * centred_push).sum(-1, keepdims=True) / np.where(square > 0, square, 1.0)
    scale = np.where(square > 0, _rounded(scale / first), 1.0)
    proportional = _alike(strength, first, held) and _alike(centred_push, first * scale * centred_reward, held)
    if not proportional:
        return None
    scaled = np.where(held, reward * scale, 0.0)
    find: Find
    if _alike(there, here, held):
        name, find = LINEAR, closed_forms.weighted
    elif _alike(there, here * np.exp(-0.5), held):
        name, find = REVERSE, closed_forms.reverse
    else:
        return None
    policy, level = by_size(find, table, scaled, beta)
    if (scale == 1.0).all():
        return OwnForm(name=name, policy=policy, level=level)
    return OwnForm(name=f"{name}, R as the loss scales it", policy=policy, level=level)


def vanilla_form(beta: float) -> Form:
    """π₀ exp(R/β), normalised: blind to the variance."""

    def form(table: Table) -> tuple[Array, Array | None]:
        coefficient = np.full(table.held.shape, beta)
        return by_size(_vanilla, table, table.estimate, coefficient)

    return form


def detached_form(beta: float) -> Form:
    """π₀ exp((R - λ)/(β v)), v = variance / its mean under the reference over all prompts, not clipped."""

    def form(table: Table) -> tuple[Array, Array | None]:
        weight = np.where(table.held, np.exp(table.log_reference), 0.0)
        prompts = len(table.held)
        mean = (weight * table.variance).sum() / prompts
        return by_size(closed_forms.weighted, table, table.estimate, beta * table.variance / mean)

    return form


def matched_beta(table: Table, target: float) -> float:
    """β at which the vanilla policies' mean KL is `target` nats, by bisection; for comparison at equal KL."""
    some = table.first(MATCH_DRAWS)
    low, high = 1e-4, 1e4
    for _ in range(40):
        middle = (low * high) ** 0.5
        policy, _ = vanilla_form(middle)(some)
        low, high = (middle, high) if mean_kl(policy, some) > target else (low, middle)
    return float((low * high) ** 0.5)


def mean_kl(policy: Array, table: Table) -> float:
    """Mean over prompts of KL(policy || reference), in nats."""
    return float(kl_of(policy, table).mean())


def kl_of(policy: Array, table: Table) -> Array:
    """KL(policy || reference) of each prompt, in nats (X,)."""
    reference = np.where(table.held, np.exp(table.log_reference), 1.0)
    return np.maximum(closed_forms.kl(np.where(table.held, policy, 0.0), reference), 0.0)


def quadratic_risks(prompts: Sequence[Arms]) -> dict[str, float | None]:
    """Exact risks of small steps, blind to the variance and aware of it; None where a variance of 0 forbids that."""
    gold, variance = [arms.gold for arms in prompts], [arms.sigma**2 for arms in prompts]
    known = all((part > 0).all() for part in variance)
    return {
        "vanilla": sphere_risk(gold, variance),
        "aware": ellipsoid_risk(gold, variance) if known else None,
    }


def _vanilla(reward: Array, reference: Array, coefficient: Array) -> tuple[Array, Array]:
    """The weighted form at equal coefficients, without a search: its λ is β log E_π₀ exp(R/β)."""
    beta = coefficient[:, 0]
    exponent = np.log(reference) + reward / beta[:, None]
    top = exponent.max(-1)
    level: Array = beta * (top + np.log(np.exp(exponent - top[:, None]).sum(-1)))
    return closed_forms.vanilla(reward, reference, beta[:, None]), level


Find = Callable[[Array, Array, Array], "tuple[Array, Array]"]


def by_size(find: Find, table: Table, reward: Array, coefficient: Array) -> tuple[Array, Array]:
    """A closed form on prompts with different numbers of arms: policy (X, n), 0 outside, and λ (X,)."""
    policy, level = np.zeros(reward.shape), np.zeros(len(reward))
    size_X = table.held.sum(-1)  # arms are held from the left
    for size in np.unique(size_X):
        rows = size_X == size
        reference = np.exp(table.log_reference[rows, :size])
        policy[rows, :size], level[rows] = find(reward[rows, :size], reference, coefficient[rows, :size])
    return policy, level


def _centred(values: Array, held: NDArray[np.bool_]) -> Array:
    mean = np.where(held, values, 0.0).sum(-1, keepdims=True) / held.sum(-1, keepdims=True)
    centred: Array = np.where(held, values - mean, 0.0)
    return centred


def _rounded(ratio: Array) -> Array:
    """1 where a measured ratio is."""
    rounded: Array = np.where(np.abs(ratio - 1.0) <= ALIKE, 1.0, ratio)
    return rounded


def _alike(one: Array, other: Array, held: NDArray[np.bool_]) -> bool:
    difference = np.where(held, np.abs(one - other), 0.0)
    return bool((difference <= ALIKE * np.where(held, np.abs(one), 0.0).max(-1, keepdims=True) + 1e-12).all())
