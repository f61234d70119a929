"""Prompts side by side in padded arrays, so that a loss sees all of them, or many draws of them, at once.

Legend: X = prompts, n = arms of the largest prompt, S = arms of all prompts (rollouts), K = members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nashtune.bandits.bandit import Arms
from nashtune.errors import InputError
from nashtune.games.matrices import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Arms of X prompts; what lies outside of `held` means nothing.

    Args:
        held: Where a prompt has an arm (X, n).
        log_reference: log of the reference's probabilities, -inf outside (X, n).
        estimate: Rewards that the policy is trained on, 0 outside (X, n).
        variance: Of the rewards, 0 outside (X, n).
        members: Scores of an ensemble (X, K, n), 0 outside; None without one.
    """

    held: NDArray[np.bool_]
    log_reference: Array
    estimate: Array
    variance: Array
    members: Array | None = None

    def flat(self, values: Array) -> Tensor:
        """Values (X, n) of the arms that are held, prompts one after another (S,)."""
        return torch.from_numpy(values[self.held])

    def padded(self, values_S: Tensor) -> Array:
        """Inverse of `flat`: (X, n) with 0 outside."""
        found = np.zeros(self.held.shape)
        found[self.held] = values_S.detach().numpy()
        return found

    def first(self, prompts: int) -> Table:
        """Its first prompts."""
        return self._each(lambda values: values[:prompts])

    def without(self, prompts: int) -> Table:
        """All but its first prompts."""
        return self._each(lambda values: values[prompts:])

    def before(self, other: Table) -> Table:
        """These prompts, followed by those of another table of the same width and kind."""
        rest = iter(vars(other).values())
        return self._each(lambda values: np.concatenate([values, next(rest)]))

    def _each(self, change: Callable[[Any], Any]) -> Table:
        members = self.members
        return Table(
            held=change(self.held),
            log_reference=change(self.log_reference),
            estimate=change(self.estimate),
            variance=change(self.variance),
            members=None if members is None else change(members),
        )

    @property
    def group(self) -> Tensor:
        """Which prompt each arm belongs to (S,)."""
        return torch.from_numpy(np.nonzero(self.held)[0])

    @property
    def weight(self) -> Tensor:
        """Share of each arm among the completions that the reference draws for all prompts; they sum to 1 (S,)."""
        return self.flat(np.exp(self.log_reference) / len(self.held))


def table_of(prompts: Sequence[Arms]) -> Table:
    """The prompts as they are given.

    Raises:
        InputError: prompts of different numbers of members.
    """
    estimate = pad([arms.estimate for arms in prompts])
    return Table(
        held=pad([np.ones(arms.size) for arms in prompts]) > 0,
        log_reference=pad([np.log(arms.reference) for arms in prompts], outside=-np.inf),
        estimate=estimate,
        variance=pad([arms.variance for arms in prompts]),
        members=_members(prompts),
    )


def drawn_table(prompts: Sequence[Arms], draws: int, random: np.random.Generator) -> Table:
    """`draws` times the prompts, each with an estimate of its own: r* + σ ε (X = draws * prompts, draw by draw).

    Where the prompts have members, as many members are drawn instead, and their sample variance is that of the draw.
    """
    held = pad([np.ones(arms.size) for arms in prompts]) > 0
    gold, sigma = pad([arms.gold for arms in prompts]), pad([arms.sigma for arms in prompts])
    log_reference = pad([np.log(arms.reference) for arms in prompts], outside=-np.inf)
    known = _members(prompts)
    if known is None:
        members = None
        estimate = (gold + sigma * random.standard_normal((draws, *gold.shape))).reshape(-1, gold.shape[1])
        variance = np.tile(pad([arms.variance for arms in prompts]), (draws, 1))
    else:
        noise = random.standard_normal((draws, *known.shape))
        members = (gold[:, None] + sigma[:, None] * noise).reshape(-1, *known.shape[1:])
        estimate, variance = members.mean(1), members.var(1, ddof=1)
    return Table(
        held=np.tile(held, (draws, 1)),
        log_reference=np.tile(log_reference, (draws, 1)),
        estimate=estimate,
        variance=variance,
        members=members,
    )


def pad(parts: Sequence[Array], outside: float = 0.0) -> Array:
    """Vectors of different lengths as one array (X, n)."""
    size = max(len(part) for part in parts)
    return np.stack([np.pad(part, (0, size - len(part)), constant_values=outside) for part in parts])


def _members(prompts: Sequence[Arms]) -> Array | None:
    first = 0 if prompts[0].members is None else len(prompts[0].members)
    for arms in prompts:
        count = 0 if arms.members is None else len(arms.members)
        if count != first:
            raise InputError(
                f"{prompts[0].name} has {first or 'no'} members and {arms.name} {count or 'none'}; one ensemble scores "
                "all prompts, so give as many members to each"
            )
    found = [arms.members for arms in prompts if arms.members is not None]
    if not found:
        return None
    size = max(part.shape[1] for part in found)
    return np.stack([np.pad(part, ((0, 0), (0, size - part.shape[1]))) for part in found])
