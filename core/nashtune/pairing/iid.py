"""Pairing `iid`: independent pairs, each of two completions that meet nobody else."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Literal

from nashtune.interfaces.pairing import Comparisons, Paired, Pairing, Pairs

if TYPE_CHECKING:
    import numpy as np


class IID(Pairing):
    """Completions 0 and 1 form a pair, 2 and 3, and so on: what the losses of ONPO, INPO and Nash-MD are derived for.

    Args:
        label: `sampled` draws the winner of a pair with its probability P, as the derivations assume; `likely` takes
            the more likely one, and a pair with P exactly 1/2 is left out.
    """

    def __init__(self, *, label: Literal["sampled", "likely"] = "sampled") -> None:
        self.label = label

    def compare(self, n: int, random: np.random.Generator) -> Comparisons:
        """n/2 comparisons at once; with `sampled`, one uniform number is drawn for each.

        Raises:
            ValueError: n is odd, or 0.
        """
        self.most(n)
        return self._compare(n, random)

    def most(self, n: int) -> tuple[int, int]:
        """n/2 comparisons, n/2 pairs."""
        if n < 2 or n % 2:
            raise ValueError(
                f"sampler.completions: the pairing iid takes completions two by two, and {n} is not an even number; "
                f"give {max(2, n + 1)}, or another even number"
            )
        return n // 2, n // 2

    def _compare(self, n: int, random: np.random.Generator) -> Comparisons:
        # all at once and before any answer, so that a missing answer moves no other label
        draws = random.random(n // 2).tolist() if self.label == "sampled" else [0.5] * (n // 2)
        answers = yield [(i, i + 1) for i in range(0, n, 2)]
        pairs: list[Paired] = []
        dropped: Counter[str] = Counter()
        for pair, (p, draw) in enumerate(zip(answers, draws, strict=True)):
            first, second = 2 * pair, 2 * pair + 1
            if math.isnan(p):
                dropped["unparsed"] += 1
            elif self.label == "likely" and p == 0.5:
                dropped["tie"] += 1
            elif draw < p:
                pairs.append(Paired(chosen=first, rejected=second, p_chosen=p))
            else:
                pairs.append(Paired(chosen=second, rejected=first, p_chosen=1.0 - p))
        return Pairs(pairs=tuple(pairs), dropped=dict(dropped))
