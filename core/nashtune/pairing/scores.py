"""Pairs from the scores of one prompt's completions: plain functions, best first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

Couple = tuple[int, int]
"""(chosen, rejected): indices of two completions, the first ranked no worse than the second."""


def best_worst(scores: Sequence[float], min_gap: float = 0.0) -> list[Couple]:
    """The best against the worst: one pair, or none. Of equals the first counts.

    Args:
        scores: Higher is better.
        min_gap: Least difference of the two scores. Equal scores never pair, also at 0.

    Raises:
        ValueError: a score is not finite.
    """
    return _apart(extremes(scores), scores, min_gap)


def all_pairs(scores: Sequence[float], min_gap: float = 0.0) -> list[Couple]:
    """Every two completions whose scores differ, by the rank of the chosen one, then of the rejected one.

    Args:
        scores: Higher is better.
        min_gap: Least difference of the two scores. Equal scores never pair, also at 0.

    Raises:
        ValueError: a score is not finite.
    """
    return _apart(every_two(scores), scores, min_gap)


def adjacent(scores: Sequence[float], min_gap: float = 0.0) -> list[Couple]:
    """Each completion against the next one in rank; neighbours that are too close are left out, not bridged.

    Args:
        scores: Higher is better.
        min_gap: Least difference of the two scores. Equal scores never pair, also at 0.

    Raises:
        ValueError: a score is not finite.
    """
    return _apart(neighbours(scores), scores, min_gap)


def extremes(scores: Sequence[float]) -> list[Couple]:
    """(best, worst), of equals the first; nothing where there are fewer than two."""
    order = _descending(scores)
    if len(order) < 2:
        return []
    worst = min(range(len(scores)), key=scores.__getitem__)
    # where all are equal the first is best and worst: say so with two of them
    return [(order[0], worst if worst != order[0] else order[1])]


def every_two(scores: Sequence[float]) -> list[Couple]:
    """Every two, better one first."""
    return list(combinations(_descending(scores), 2))


def neighbours(scores: Sequence[float]) -> list[Couple]:
    """Every two that are neighbours in rank, better one first."""
    return list(pairwise(_descending(scores)))


def _descending(scores: Sequence[float]) -> list[int]:
    """Indices from best to worst, equals in their own order."""
    for i, score in enumerate(scores):
        if not math.isfinite(score):
            raise ValueError(f"score {i} is {score}; a pairing needs finite scores")
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def _apart(couples: list[Couple], scores: Sequence[float], min_gap: float) -> list[Couple]:
    return [(i, j) for i, j in couples if scores[i] > scores[j] and scores[i] - scores[j] >= min_gap]
