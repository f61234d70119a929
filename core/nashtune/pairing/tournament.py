"""Pairing `tournament`: the bracket of INPO (arXiv:2407.00617, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nashtune.interfaces.pairing import Comparisons, Paired, Pairing, Pairs

if TYPE_CHECKING:
    import numpy as np

Match = tuple[int, int]


class Tournament(Pairing):
    """Best against worst with 3n/2 - 1 comparisons of n completions, 11 of 8, instead of n(n-1)/2.

    Neighbours meet first. Then winners play winners until one has won every match, and losers play losers until one has
    lost every match; with P exactly 1/2 the first one wins. At last these two meet, and they are a pair only if the
    winner wins again, P above 1/2. P of exactly 1/2 is counted as a tie, and less as inconsistent.
    """

    def compare(self, n: int, random: np.random.Generator) -> Comparisons:
        """Level by level, winners' and losers' matches of a level at once; nothing is drawn.

        Raises:
            ValueError: n is not a power of two.
        """
        self.most(n)
        return self._compare(n)

    def most(self, n: int) -> tuple[int, int]:
        """3n/2 - 1 comparisons, 1 pair."""
        if n < 2 or n & (n - 1):
            raise ValueError(
                f"sampler.completions: the pairing tournament needs a power of two, and {n} is none; "
                "give 2, 4, 8 (the paper's), 16, ..."
            )
        return 3 * n // 2 - 1, 1

    def _compare(self, n: int) -> Comparisons:
        matches = _neighbours(range(n))
        answers = yield matches
        if unparsed := _unparsed(answers):
            return unparsed
        winners, losers = _play(matches, answers)
        while len(winners) > 1:
            matches = [*_neighbours(winners), *_neighbours(losers)]
            answers = yield matches
            if unparsed := _unparsed(answers):
                return unparsed
            half = len(matches) // 2
            winners, _ = _play(matches[:half], answers[:half])
            _, losers = _play(matches[half:], answers[half:])
        # also where the two met in the first level: an oracle that draws its answers is asked again
        answers = yield [(winners[0], losers[0])]
        if unparsed := _unparsed(answers):
            return unparsed
        if answers[0] > 0.5:
            return Pairs(pairs=(Paired(chosen=winners[0], rejected=losers[0], p_chosen=answers[0]),), dropped={})
        return Pairs(pairs=(), dropped={"tie" if answers[0] == 0.5 else "inconsistent": 1})


def _neighbours(entrants: Sequence[int]) -> list[Match]:
    return list(zip(entrants[::2], entrants[1::2], strict=True))


def _play(matches: Sequence[Match], answers: Sequence[float]) -> tuple[list[int], list[int]]:
    """Winners and losers, in the order of their matches; with P exactly 1/2 the first one wins."""
    played = [(i, j) if p >= 0.5 else (j, i) for (i, j), p in zip(matches, answers, strict=True)]
    return [winner for winner, _ in played], [loser for _, loser in played]


def _unparsed(answers: Sequence[float]) -> Pairs | None:
    """A match without an answer ends the tournament: nobody knows who goes on."""
    missing = sum(map(math.isnan, answers))
    return Pairs(pairs=(), dropped={"unparsed": missing}) if missing else None
