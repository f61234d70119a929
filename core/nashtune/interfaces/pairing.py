"""Pairing: decides which completions of a prompt are compared, and which become preference pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One preference pair among a prompt's completions.

    Args:
        chosen: Index of y_w.
        rejected: Index of y_l.
        p_chosen: P(y_w > y_l) as the oracle gave it, in [0, 1].
        win_rate_chosen: Mean P(y_w > y) over the prompt's completions, itself counting 1/2; where all were compared.
        win_rate_rejected: The same of y_l.
    """

    chosen: int
    rejected: int
    p_chosen: float
    win_rate_chosen: float | None = None
    win_rate_rejected: float | None = None


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What a pairing made of one prompt.

    Args:
        pairs: The pairs.
        dropped: Why other pairs were not made, with how many: "tie", "close", "inconsistent", ...; "unparsed" counts
            comparisons without an answer.
    """

    pairs: tuple[Paired, ...]
    dropped: dict[str, int]


Comparisons = Generator[list[tuple[int, int]], list[float], Pairs]
"""Yields the comparisons (i, j) it wants next, is sent P(i > j) for each, and returns the pairs. NaN is no answer."""


class Pairing(ABC):
    """Turns a prompt's completions into preference pairs.

    One prompt is one generator, so that a tournament can ask for its next matches when it knows who won; the runner
    drives the generators of many prompts side by side and asks the oracle for all of them at once.

    Attributes:
        gives_win_rates: Whether every pair carries win rates, which means that all completions are compared.
    """

    gives_win_rates: ClassVar[bool] = False

    @abstractmethod
    def compare(self, n: int, random: np.random.Generator) -> Comparisons:
        """The comparisons of one prompt with `n` completions.

        Args:
            n: Number of completions.
            random: Stream of this prompt and round: labels that are drawn are drawn from it.
        """

    @abstractmethod
    def most(self, n: int) -> tuple[int, int]:
        """(comparisons, pairs) of a prompt with `n` completions, at most: what a plan of the run counts with."""
