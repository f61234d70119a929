"""Oracle: judges completions, one by one (reward) or in pairs (preference)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """Scores of N completions.

    Args:
        mean: Reward (N,).
        variance: Variance of the reward (N,), where the oracle knows it.
        members: Scores of the K members of an ensemble (N, K).
    """

    mean: Tensor
    variance: Tensor | None = None
    members: Tensor | None = None


class RewardOracle(ABC):
    """Scores completions one by one."""

    @abstractmethod
    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Rewards:
        """Rewards of `completions[i]` given `prompts[i]`."""


class PreferenceOracle(ABC):
    """Compares completions in pairs."""

    @abstractmethod
    def compare(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """P(first > second) in [0, 1] (N,); swapping the two gives one minus it."""
