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
from nashtune.bandits.optimum import slope_rounding, slopes
from nashtune.bandits.risk import ellipsoid_risk, sphere_risk
from nashtune.bandits.table import Table
from nashtune.games.matrices import Array

ALIKE = 1e-3
"""Relative difference below which slopes are equal: they are differences of coefficients, and a loss's scale moves a
little with the policy where it is that of a whole batch."""
MEASURED = 1e-4
"""Share of a prompt's largest β below which an arm's slope is not measured: a loss's scale moves it by more."""
MATCH_DRAWS = 10_000
MATCH_WIDTH = 1e4
"""Bracket of β around the spread of the estimates, and how much wider it becomes at a time."""
MATCH_WIDEST = 1e16
MATCH_TOLERANCE = 1e-10
LINEAR = "π₀ exp((R − λ)/β)"
REVERSE = "π₀ / (1 − (R − λ)/β)"

Form = Callable[[Table], "tuple[Array, Array | None]"]
"""Prompts -> policy (X, n) and, where there is one, λ of each (X,)."""


@dataclass(frozen=True, kw_only=True)
class OwnForm:
    """The closed form that a spec's loss and KL controller have.

    Args:
        name: The formula.
        log_policy: Log-probs (X, n), -inf outside.
        level: λ of each prompt (X,).
    """

    name: str
    log_policy: Array
    level: Array

    @property
    def policy(self) -> Array:
        """Probabilities (X, n), 0 outside."""
        policy: Array = np.exp(self.log_policy)
        return policy


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
    if (beta <= 0).any():
        return None
    strongest = np.where(held, beta, 0.0).argmax(-1)[:, None]
    strength = -here / beta
    first = _rounded(np.take_along_axis(strength, strongest, -1))
    rounding = slope_rounding(push)
    if (first * np.take_along_axis(beta, strongest, -1) <= rounding).any():
        return None
    measured = (beta > MEASURED * np.take_along_axis(beta, strongest, -1)) & (ALIKE * first * beta > rounding)
    centred_reward, centred_push = (_centred(values, held) for values in (reward, push))
    square = (centred_reward**2).sum(-1, keepdims=True)
    scale = (centred_reward * centred_push).sum(-1, keepdims=True) / np.where(square > 0, square, 1.0)
    scale = np.where(square > 0, _rounded(scale / first), 1.0)
    expected_push = first * scale * centred_reward
    if not (_alike(strength, first, held & measured) and _alike(centred_push, expected_push, held)):
        return None
    scaled = np.where(held, reward * scale, 0.0)
    find: Find
    if _alike(there, here, held):
        name, find = LINEAR, closed_forms.log_weighted
    elif _alike(there, here * np.exp(-0.5), held):
        name, find = REVERSE, closed_forms.log_reverse
    else:
        return None
    log_policy, level = by_size(find, table, scaled, beta, outside=-np.inf)
    if not (scale == 1.0).all():
        name = f"{name}, R as the loss scales it"
    return OwnForm(name=name, log_policy=log_policy, level=level)


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


def matched_beta(table: Table, target: float) -> float | None:
    """β at which the vanilla policies' mean KL is `target` nats, by bisection; for comparison at equal KL.

    Returns:
        None where no β reaches it: a policy that holds one arm alone is as far as estimates lead.
    """
    some = table.first(MATCH_DRAWS)
    estimate = np.where(some.held, some.estimate, some.estimate[:, :1])  # arms are held from the left
    spread = float(np.ptp(estimate, axis=-1).max())
    if spread == 0.0:
        return None

    def further(beta: float) -> bool:
        policy, _ = vanilla_form(beta)(some)
        return mean_kl(policy, some) > target

    width = MATCH_WIDTH
    while not further(spread / width):
        if width >= MATCH_WIDEST:
            return None
        width *= MATCH_WIDTH
    low, width = spread / width, MATCH_WIDTH
    while further(spread * width):
        if width >= MATCH_WIDEST:
            return None
        width *= MATCH_WIDTH
    high = spread * width
    while high > low * (1.0 + MATCH_TOLERANCE):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if further(middle) else (low, middle)
    return float((low * high) ** 0.5)


def mean_kl(policy: Array, table: Table) -> float:
    """Mean over prompts of KL(policy || reference), in nats."""
    return float(kl_of(policy, table).mean())


def kl_of(policy: Array, table: Table) -> Array:
    """KL(policy || reference) of each prompt, in nats (X,)."""
    reference = np.where(table.held, np.exp(table.log_reference), 1.0)
    return np.maximum(closed_forms.kl(np.where(table.held, policy, 0.0), reference), 0.0)


def quadratic_risks(prompts: Sequence[Arms]) -> dict[str, float | None]:
    """Exact risks of small steps, blind to the variance and aware of it; None where a variance of 0 forbids that.

    The estimate of an ensemble is the mean of K members, of variance σ²/K. The aware step weighs by the true σ², and
    not by what the members say of it.
    """
    gold = [arms.gold for arms in prompts]
    variance = [arms.sigma**2 / (1 if arms.members is None else len(arms.members)) for arms in prompts]
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


def by_size(
    find: Find, table: Table, reward: Array, coefficient: Array, *, outside: float = 0.0
) -> tuple[Array, Array]:
    """A closed form on prompts with different numbers of arms: policy or its log (X, n), and λ (X,)."""
    policy, level = np.full(reward.shape, outside), np.zeros(len(reward))
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
