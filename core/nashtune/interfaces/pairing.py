"""Pairing: turns the scores of a prompt's completions into preference pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Pairing(ABC):
    """Chooses which completions of one prompt become pairs."""

    @abstractmethod
    def pairs(self, scores: Sequence[float]) -> list[tuple[int, int]]:
        """(chosen, rejected) indices into `scores`, higher is better; equal scores never form a pair."""
