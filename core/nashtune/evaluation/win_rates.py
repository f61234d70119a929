"""Win rates of policies against each other on the same held-out prompts, with bootstrap intervals over prompts.

The win rate of a over b is the mean of P(a's answer > b's answer) over prompts, so a tie counts one half and the matrix
is antisymmetric around one half by construction. Both orders of every pair of answers are asked, (P(a, b) + 1 - P(b,
a)) / 2, because judges favour a position; equal answers are worth one half and are not asked.

Legend: M = policies, C = M (M - 1) / 2 pairs of policies, N = prompts, R = bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nashtune.evaluation.bootstrap import RATE, Resampling
from nashtune.evaluation.both_orders import Probabilities, both_orders
from nashtune.evaluation.pairwise import from_triangles, means_over_others, weighted_means
from nashtune.evaluation.plain import array, plain
from nashtune.evaluation.rate_table import matrix_table
from nashtune.interfaces.oracle import Prompt

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Comparison:
    """The answers of two policies to one prompt.

    Args:
        prompt: Number of the prompt, from 0.
        first: Name of a policy.
        second: Name of another.
        p: P(answer of `first` > answer of `second`), mean of both orders; None where one of them had no usable answer.
    """

    prompt: int
    first: str
    second: str
    p: float | None


ARRAYS = ("rates", "low", "high", "average", "average_low", "average_high")
COUNTS = ("prompts", "identical", "disagreements", "unanswered", "resamples", "level")


@dataclass(frozen=True, kw_only=True)
class WinRates:
    """Every policy against every other.

    Args:
        policies: Names (M).
        rates: Win rate of row over column (M, M), 1/2 on the diagonal.
        low: Lower ends of the intervals of `rates` (M, M).
        high: Upper ends (M, M).
        average: Mean win rate of a policy over all others (M,).
        average_low: Lower ends of its intervals (M,).
        average_high: Upper ends (M,).
        comparisons: Every pair of answers, by pair of policies and then by prompt.
        prompts: N.
        identical: Comparisons of equal answers, worth 1/2 each.
        disagreements: Comparisons whose winner was another one when the two answers changed places.
        unanswered: Comparisons without a usable answer in one order or both; they are in no mean.
        resamples: R.
        level: Share of resamples inside an interval.
    """

    policies: tuple[str, ...]
    rates: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    average: NDArray[np.float64]
    average_low: NDArray[np.float64]
    average_high: NDArray[np.float64]
    comparisons: tuple[Comparison, ...] = field(repr=False)
    prompts: int
    identical: int
    disagreements: int
    unanswered: int
    resamples: int
    level: float

    def as_dict(self) -> dict[str, Any]:
        """For `report.json`: everything but the single comparisons; None where no prompt was answered."""
        arrays = ("rates", "low", "high", "average", "average_low", "average_high")
        counts = ("prompts", "identical", "disagreements", "unanswered", "resamples", "level")
        return {
            "policies": list(self.policies),
            **{name: plain(getattr(self, name)) for name in arrays},
            "comparisons": len(self.comparisons),
            **{name: getattr(self, name) for name in counts},
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> WinRates:
        """Inverse of `as_dict`, without the single comparisons."""
        found: dict[str, Any] = {name: array(written[name]) for name in ARRAYS}
        found |= {name: written[name] for name in COUNTS}
        return cls(policies=tuple(written["policies"]), comparisons=(), **found)

    def table(self) -> Table:
        """For the terminal: each cell is a win rate over its interval, coloured where the interval excludes 1/2."""
        return matrix_table(
            self.policies,
            (self.rates, self.low, self.high),
            (self.average, self.average_low, self.average_high),
            caption=self.footnote(),
        )

    def footnote(self) -> str:
        """How many prompts, which intervals, and what was counted on the way."""
        counts = {
            "{} of equal answers count 1/2": self.identical,
            "{} changed winner with the order": self.disagreements,
            "{} had no usable answer": self.unanswered,
        }
        found = "".join(f"; {text.format(count)}" for text, count in counts.items() if count)
        return (
            f"{self.prompts} prompts, both orders averaged, {100 * self.level:g} % bootstrap intervals over prompts; "
            f"{len(self.policies) * (len(self.policies) - 1) // 2 * self.prompts} comparisons{found}"
        )


def win_rates(
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[str]],
    probabilities: Probabilities,
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> WinRates:
    """Compare the answers of every two policies to the same prompts.

    Intervals are percentile intervals over resampled prompts, widened to those of Student's t; where all agreed,
    they reach to Clopper and Pearson's end (`nashtune.evaluation.bootstrap`). Of one prompt there are none.

    Args:
        prompts: Held-out prompts (N), at least one.
        answers: For each of M >= 2 policies its answers (N).
        probabilities: Judges pairs of answers; called once, with both orders of every comparison that is asked.
        seed: Of the resampling.
        resamples: R.
        level: Share of resamples inside an interval.

    Raises:
        InputError: the judge's answers are not probabilities of N comparisons.
    """
    names = tuple(answers)
    asked = [
        (n, a, b) for a, b in combinations(names, 2) for n in range(len(prompts)) if answers[a][n] != answers[b][n]
    ]
    forward, swapped = both_orders(prompts, answers, probabilities, asked)
    p = dict(zip(asked, 0.5 * (forward + 1.0 - swapped), strict=True))
    p_CN = np.array([[p.get((n, a, b), 0.5) for n in range(len(prompts))] for a, b in combinations(names, 2)])
    resampling = Resampling(1, len(prompts), resamples, level=level, seed=seed)
    rates_RC = weighted_means(p_CN, resampling.weights_RK)  # all resamples in one matrix product
    rates = resampling.estimate(rates_RC, RATE, (~np.isnan(p_CN)).sum(axis=1))
    averages = resampling.estimate(means_over_others(rates_RC, len(names)), RATE)
    return WinRates(
        policies=names,
        rates=from_triangles(rates.value, 1 - rates.value, len(names)),
        low=from_triangles(rates.low, 1 - rates.high, len(names)),
        high=from_triangles(rates.high, 1 - rates.low, len(names)),
        average=averages.value,
        average_low=averages.low,
        average_high=averages.high,
        comparisons=tuple(
            Comparison(n, a, b, None if np.isnan(value) else float(value))
            for (a, b), values in zip(combinations(names, 2), p_CN, strict=True)
            for n, value in enumerate(values)
        ),
        prompts=len(prompts),
        identical=p_CN.size - len(asked),
        disagreements=int(np.sum((forward - 0.5) * (0.5 - swapped) < 0)),  # NaN compares false
        unanswered=int(np.isnan(p_CN).sum()),
        resamples=resamples,
        level=level,
    )
