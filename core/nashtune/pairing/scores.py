"""Pairs from the scores of one prompt's completions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from jsonargparse.typing import NonNegativeFloat

from nashtune.interfaces.pairing import Pairing


class BestWorst(Pairing):
    """The best against the worst: one pair per prompt, or none.

    Args:
        min_gap: Least difference of their scores, in units of the score, >= 0. Equal scores never pair, also at 0.
    """

    def __init__(self, *, min_gap: NonNegativeFloat = 0.0) -> None:
        self.min_gap = float(min_gap)

    def pairs(self, scores: Sequence[float]) -> list[tuple[int, int]]:
        """(best, worst), or nothing; of equals the first counts."""
        order = _descending(scores)
        if not order:
            return []
        best = order[0]
        worst = min(range(len(scores)), key=lambda i: scores[i])
        return [(best, worst)] if _apart(scores[best], scores[worst], self.min_gap) else []


class AllPairs(Pairing):
    """Every two completions whose scores differ: up to n(n-1)/2 pairs of n completions.

    Args:
        min_gap: Least difference of the two scores, in units of the score, >= 0. Equal scores never pair, also at 0.
    """

    def __init__(self, *, min_gap: NonNegativeFloat = 0.0) -> None:
        self.min_gap = float(min_gap)

    def pairs(self, scores: Sequence[float]) -> list[tuple[int, int]]:
        """Pairs ordered by the rank of the chosen one, then of the rejected one."""
        order = _descending(scores)
        return [
            (chosen, rejected)
            for place, chosen in enumerate(order)
            for rejected in order[place + 1 :]
            if _apart(scores[chosen], scores[rejected], self.min_gap)
        ]


class Adjacent(Pairing):
    """Each completion against the next one in rank: up to n-1 pairs of n completions.

    Args:
        min_gap: Least difference of the two scores, in units of the score, >= 0. Equal scores never pair, also at 0,
            and neighbours that are too close are left out, not bridged.
    """

    def __init__(self, *, min_gap: NonNegativeFloat = 0.0) -> None:
        self.min_gap = float(min_gap)

    def pairs(self, scores: Sequence[float]) -> list[tuple[int, int]]:
        """Neighbours in rank, best first."""
        order = _descending(scores)
        return [
            (chosen, rejected)
            for chosen, rejected in pairwise(order)
            if _apart(scores[chosen], scores[rejected], self.min_gap)
        ]


def _descending(scores: Sequence[float]) -> list[int]:
    """Indices from best to worst, equals in their own order."""
    for i, score in enumerate(scores):
        if not math.isfinite(score):
            raise ValueError(f"score {i} is {score}; a pairing needs finite scores")
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def _apart(chosen: float, rejected: float, min_gap: float) -> bool:
    return chosen > rejected and chosen - rejected >= min_gap
