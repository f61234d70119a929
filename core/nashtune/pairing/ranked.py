"""Pairings `best_worst`, `all_pairs` and `adjacent`: everyone against everyone, then pairs by win rate."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

from jsonargparse.typing import ClosedUnitInterval

from nashtune.interfaces.pairing import Comparisons, Paired, Pairing, Pairs
from nashtune.pairing.scores import Couple, every_two, extremes, neighbours

if TYPE_CHECKING:
    import numpy as np

DECIMALS = 12  # P(j > i) = 1 - P(i > j) is rounded, so equal win rates differ in their last bits


class Ranked(Pairing):
    """Compares every two completions and ranks them by their win rate, the mean of P(y > y') over the prompt's y'.

    A completion counts 1/2 against itself. A comparison without an answer enters neither win rate, and its two
    completions make no pair.

    Args:
        min_gap: Least difference of the two win rates, in [0, 1]. Equal ones never pair, also at 0.
    """

    gives_win_rates: ClassVar[bool] = True

    def __init__(self, *, min_gap: ClosedUnitInterval = 0.0) -> None:
        self.min_gap = float(min_gap)

    def compare(self, n: int, random: np.random.Generator) -> Comparisons:
        """All n(n-1)/2 comparisons at once; nothing is drawn.

        Raises:
            ValueError: there is one completion only.
        """
        self.most(n)
        return self._compare(n)

    @abstractmethod
    def couples(self, rates: Sequence[float]) -> list[Couple]:
        """(chosen, rejected) of every pair that is wanted, whatever their gap."""

    def _compare(self, n: int) -> Comparisons:
        matches = list(combinations(range(n), 2))
        answers = yield matches
        known = {match: p for match, p in zip(matches, answers, strict=True) if not math.isnan(p)}
        wins = known | {(j, i): 1.0 - p for (i, j), p in known.items()}
        rates = win_rates(n, wins)
        dropped = Counter({"unparsed": len(matches) - len(known)})
        pairs = tuple(self._pairs(rates, wins, dropped))
        return Pairs(pairs=pairs, dropped=dict(+dropped))

    def _pairs(self, rates: Sequence[float], wins: dict[Couple, float], dropped: Counter[str]) -> Iterator[Paired]:
        ranks = [round(rate, DECIMALS) for rate in rates]
        for i, j in self.couples(ranks):
            if (i, j) not in wins:
                continue  # counted as unparsed
            if ranks[i] == ranks[j]:
                dropped["tie"] += 1
            elif round(ranks[i] - ranks[j], DECIMALS) < self.min_gap:
                dropped["close"] += 1
            else:
                yield Paired(
                    chosen=i,
                    rejected=j,
                    p_chosen=wins[i, j],
                    win_rate_chosen=rates[i],
                    win_rate_rejected=rates[j],
                )


class BestWorst(Ranked):
    """The highest win rate against the lowest: one pair per prompt, or none; of equals the first counts.

    Args:
        min_gap: Least difference of the two win rates, in [0, 1]. Equal ones never pair, also at 0.
    """

    def couples(self, rates: Sequence[float]) -> list[Couple]:
        """(best, worst)."""
        return extremes(rates)

    def most(self, n: int) -> tuple[int, int]:
        """n(n-1)/2 comparisons, 1 pair."""
        return _matches(n), 1


class AllPairs(Ranked):
    """Every two completions, the one with the higher win rate chosen: up to n(n-1)/2 pairs of n completions.

    Args:
        min_gap: Least difference of the two win rates, in [0, 1]. Equal ones never pair, also at 0.
    """

    def couples(self, rates: Sequence[float]) -> list[Couple]:
        """By the rank of the chosen one, then of the rejected one."""
        return every_two(rates)

    def most(self, n: int) -> tuple[int, int]:
        """n(n-1)/2 comparisons, as many pairs."""
        return _matches(n), _matches(n)


class Adjacent(Ranked):
    """Each completion against the next one in win rate: up to n-1 pairs of n completions.

    Args:
        min_gap: Least difference of the two win rates, in [0, 1]. Equal ones never pair, also at 0, and neighbours that
            are too close are left out, not bridged.
    """

    def couples(self, rates: Sequence[float]) -> list[Couple]:
        """Neighbours in rank, best first."""
        return neighbours(rates)

    def most(self, n: int) -> tuple[int, int]:
        """n(n-1)/2 comparisons, n-1 pairs."""
        return _matches(n), n - 1


def win_rates(n: int, wins: dict[Couple, float]) -> list[float]:
    """Mean P(i > j) of each of n completions over the j it was compared with, itself counting 1/2.

    Args:
        n: Number of completions.
        wins: P(i > j) by (i, j), both ways round.
    """
    met = [[p for j in range(n) if (p := wins.get((i, j))) is not None] for i in range(n)]
    return [math.fsum([0.5, *ps]) / (1 + len(ps)) for ps in met]


def _matches(n: int) -> int:
    if n < 2:
        raise ValueError(f"sampler.completions: {n} completion per prompt makes no pair; give at least 2")
    return n * (n - 1) // 2
