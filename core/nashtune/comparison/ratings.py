"""What a comparison says of its policies. `nashtune.comparison.rate.rate` makes it from a `Judged`.

Numbers stand in an `Estimate` with their bootstrap intervals; shares of resamples have none. Rows and entries are in
the order of `policies`.

Legend: M = policies, S = seeds, N = prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nashtune.evaluation.estimate import Estimate, Floats
from nashtune.evaluation.plain import plain

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True, eq=False)
class LengthControlled:
    """Win rates as they would be for answers of equal length, by a logistic regression.

    Args:
        win_rate: Row over column (M, M), 1/2 on the diagonal; NaN where lengths overlap too little.
        mean: Mean over the others for which there is a number (M,).
        effect: Log-odds that an answer gains by being longer by `scale` tokens (), one number for the judge; 0 if it
            does not care.
        scale: Root mean square of the differences in length, in tokens; 0 where all answers had equal length, and there
            is no effect to be found.
        tokens: Mean length of each policy's answers, in tokens (M,).
        overlap: Smaller of the shares of answers in which row is not longer, and not shorter, than column (M, M), 1 on
            the diagonal; below 0.1 there is no number.
    """

    win_rate: Estimate
    mean: Estimate
    effect: Estimate
    scale: float
    tokens: Estimate
    overlap: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Elo:
    """Bradley-Terry maximum likelihood: 400 points are odds of 10 to 1, the anchor has 1000.

    Args:
        rating: (M,).
        imagined: Whether one imagined tie was added to every pair, as the likelihood has no finite maximum without.
        imagined_share: Share of resamples for which that was done.
    """

    rating: Estimate
    imagined: bool
    imagined_share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class NashAverage:
    """The maximum-entropy Nash mixture of the policies in the game of their win rates.

    Args:
        weight: Probability of each policy in the mixture (M,).
        value: Win rate of each policy over the mixture (M,): 1/2 for those in it, at most 1/2 for all.
        share: Share of resamples in which a policy is in the mixture (M,); NaN without resamples.
        determined: Whether each policy of the mixture is sure, and no other is in those of more resamples than are
            outside of an interval.
        sure: Names of the policies of the mixture that are in it in as many resamples as an interval holds; the only
            one of a mixture also beats all others, and one of several is beaten, by intervals that exclude 1/2.
        failed: Resamples for which no mixture was found; they are left out.
    """

    weight: Estimate
    value: Estimate
    share: Floats
    determined: bool
    sure: tuple[str, ...]
    failed: int


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """Three policies that beat each other in a circle: the first the second, that the third, and that the first.

    Args:
        policies: Names, from the one that comes first in the comparison.
        rates: Win rates of the three steps, each above 1/2.
        confidence: Share of resamples in which all three are above 1/2.
    """

    policies: tuple[str, str, str]
    rates: tuple[float, float, float]
    confidence: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Cyclicity:
    """How much of the win rates no single score per policy explains.

    Args:
        share: Cyclic share of the squared log-odds of the win rates (): 0 where one score per policy makes them by
            the Bradley-Terry model, 1 for rock-paper-scissors.
        noise: The share that policies with one score each would show by noise alone, in the mean.
        chance: How often they would show at least this share: a p-value. Unless it is small the share means nothing.
        cycles: Circles of three with a confidence of at least the level of the intervals, surest first.
        triples: How many triples of policies were looked at for them.
    """

    share: Estimate
    noise: float
    chance: float
    cycles: tuple[Cycle, ...]
    triples: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Frontier:
    """What each policy gained, and how far it moved from the start for it.

    Args:
        kl: KL(policy || start) in nats per answer, as far as answers were drawn (M,).
        gain: Mean reward, or win rate over the anchor where there are no rewards (M,).
        axis: "reward" or "win rate over start" (or over another anchor).
        kl_by_seed: (M, S).
        gain_by_seed: (M, S).
        best: Names of the policies of which no other has at least the gain for at most the KL divergence. Estimates
            below 0 count as 0, and the start is always one: nothing else is at 0.
        share: Share of resamples in which that is so of a policy (M,); NaN without resamples.
        estimator: What the KL divergence is the mean of: "exact per token" or "k1".
    """

    kl: Estimate
    gain: Estimate
    axis: str
    kl_by_seed: Floats
    gain_by_seed: Floats
    best: tuple[str, ...]
    share: Floats
    estimator: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Ratings:
    """Everything. A policy without a usable answer has NaN everywhere.

    Args:
        policies: Names (M).
        anchor: The policy with Elo 1000: `start` where it takes part.
        seeds: S.
        prompts: N.
        comparisons: Pairs of answers that were judged.
        unanswered: Pairs of answers without a usable answer; they count nowhere.
        resampled: What the intervals are over: ("seeds", "prompts"), ("prompts",), ("seeds",) or ().
        resamples: How many.
        level: Share of resamples inside an interval.
        win_rate: Row over column (M, M), 1/2 on the diagonal.
        mean_win_rate: Mean over all others (M,).
        hard_win_rate: The same of certain verdicts (M,): every probability above 1/2 a win, below a loss.
        length_controlled: See there, as all that follow.
        elo: Ratings.
        above: Confidence that row's Elo is above column's (M, M), 1/2 on the diagonal; NaN without resamples.
        nash: Nash average.
        cyclicity: Of the win rates.
        frontier: None where no KL divergence was measured.
        notes: What a reader must know, one sentence each.
    """

    policies: tuple[str, ...]
    anchor: str
    seeds: int
    prompts: int
    comparisons: int
    unanswered: int
    resampled: tuple[str, ...]
    resamples: int
    level: float
    win_rate: Estimate
    mean_win_rate: Estimate
    hard_win_rate: Estimate
    length_controlled: LengthControlled
    elo: Elo
    above: Floats
    nash: NashAverage
    cyclicity: Cyclicity
    frontier: Frontier | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `comparison.json`: names as here, an `Estimate` as {"value", "low", "high"}, None for NaN."""
        found: dict[str, Any] = plain(self)
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Ratings:
        """Inverse of `as_dict`."""
        from nashtune.comparison.rating_file import ratings

        return ratings(found)

    @property
    def near(self) -> dict[str, tuple[str, ...]]:
        """For each policy those that it is not told apart from: the interval of its win rate over them holds 1/2.

        Where nothing was resampled, these are all that it was compared with.
        """
        rate = self.win_rate
        apart = (rate.low > 0.5) | (rate.high < 0.5)  # NaN compares false
        return self._others(~apart & ~np.isnan(rate.value))

    @property
    def beaten_by(self) -> dict[str, tuple[str, ...]]:
        """For each policy those that beat it: the interval of its win rate over them is below 1/2."""
        return self._others(self.win_rate.high < 0.5)

    def _others(self, which_MM: NDArray[np.bool_]) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(other for other, one in zip(self.policies, row, strict=True) if one and other != name)
            for name, row in zip(self.policies, which_MM, strict=True)
        }

    def tables(self) -> list[Table]:
        """For the terminal: policies, win rates, and circles where there are any."""
        from nashtune.comparison.tables import tables

        return tables(self)
