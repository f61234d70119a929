"""Seeds and prompts resampled independently of each other: the two-way (pigeonhole) bootstrap, arXiv:0712.1111.

Every policy is trained with every seed and answers every prompt. Errors of two answers may be correlated if they share
a seed or a prompt, and resampling answers one by one would miss that. Here a resample draws seeds and prompts
separately, and an answer counts as often as its seed times as often as its prompt.

Prompts are drawn N out of N. Seeds are drawn S - 1 out of S: with S out of S the variance of a mean would come out
(S - 1)/S of what it is, which for two seeds is half (Rao and Wu 1988, with n - 1 draws). No bootstrap of crossed data
is exact. This one errs on the wide side: an effect of a seed and a prompt together, such as the noise of single
answers, counts up to three times in the variance.

From few seeds or prompts, the variance itself is a guess, and quantiles of resamples do not know that. So an interval
is widened to that of Student's t. The seeds' part of the variance is that of the jackknife, which leaves out one seed
at a time, with S - 1 degrees of freedom; the rest has N - 1; Satterthwaite's formula joins the two. With one seed the
variance is also N / (N - 1) of that of the resamples, as for any mean.

Where all prompts agreed nothing moves over the resamples, and an interval of no width would say that the next prompt
will agree, too. The interval of such a rate reaches to the rate at which so many prompts agree with a probability of
one tail: Clopper and Pearson's. Prompts count for that, or seeds where there are more: answers of one prompt may be
alike.

Legend: S = seeds, N = prompts, R = resamples. What has 1 + R + L rows has the data in the first, then the resamples,
then the data without one of the seeds (L = S, or 0 for one seed).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtr, stdtrit

from nashtune.evaluation.estimate import Estimate, Floats
from nashtune.evaluation.pairwise import quantiles

ANY = (-math.inf, math.inf)
RATE = (0.0, 1.0)
UNANIMOUS = 5e-4
"""A rate as near as this to 0 or 1 is printed as one of them; a saturated judge's is never quite there."""


def resampled(seeds: int, prompts: int) -> tuple[str, ...]:
    """What there is more than one of: only that can be resampled."""
    return (*(["seeds"] if seeds > 1 else []), *(["prompts"] if prompts > 1 else []))


def resample_weights(seeds: int, prompts: int, resamples: int, *, seed: int) -> Floats:
    """How often each answer counts (1 + R, S, N), with a mean of 1 in every row.

    Args:
        seeds: S.
        prompts: N.
        resamples: R; none are made where there is one seed and one prompt.
        seed: Of the resampling.
    """
    if not resampled(seeds, prompts):
        return np.ones((1, seeds, prompts))
    draws = np.random.default_rng(seed)
    prompts_RN = draws.multinomial(prompts, [1 / prompts] * prompts, resamples).astype(np.float64)
    seeds_RS: Floats = np.ones((resamples, seeds))
    if seeds > 1:
        seeds_RS *= draws.multinomial(seeds - 1, [1 / seeds] * seeds, resamples) * (seeds / (seeds - 1))
    return np.concatenate([np.ones((1, seeds, prompts)), seeds_RS[:, :, None] * prompts_RN[:, None, :]])


class Resampling:
    """The weights of a comparison's answers, and what numbers computed with each row of them say of errors.

    Args:
        seeds: S.
        prompts: N.
        resamples: R.
        level: Share of an interval.
        seed: Of the resampling.
    """

    def __init__(self, seeds: int, prompts: int, resamples: int, *, level: float, seed: int) -> None:
        weights_RSN = resample_weights(seeds, prompts, resamples, seed=seed)
        left_out = 1.0 - np.eye(seeds) if seeds > 1 else np.ones((0, 1))
        without_LSN = np.broadcast_to(left_out[:, :, None] * seeds / max(1, seeds - 1), (*left_out.shape, prompts))
        self.weights_RSN: Floats = np.concatenate([weights_RSN, without_LSN])
        self.weights_RK: Floats = self.weights_RSN.reshape(len(self.weights_RSN), -1)
        self.seeds, self.prompts, self.level = seeds, prompts, level
        self.resamples = len(weights_RSN) - 1

    def drawn(self, values: Floats) -> Floats:
        """Of the resamples alone (R, ...)."""
        return values[1 : 1 + self.resamples]

    def percentiles(self, values: Floats) -> Estimate:
        """The data's own numbers with quantiles of the resamples: for numbers that jump, and so have no variance."""
        return estimate(values[: 1 + self.resamples], self.level)

    def estimate(
        self, values: Floats, within: tuple[float, float] = ANY, answered: Floats | float = math.inf
    ) -> Estimate:
        """The data's own numbers with percentile intervals, widened to those of Student's t.

        Args:
            values: (1 + R + L, ...); resamples with NaN are left out of the interval of that number.
            within: What the number cannot be outside of.
            answered: Prompts behind each number, of the shape of one row, where they may be fewer than all.
        """
        found = self.percentiles(values)
        if not self.resamples:
            return found
        error, freedom = self.errors(values, answered)
        half = (found.high - found.low) / 2
        needed = stdtrit(freedom, (1 + self.level) / 2) * error
        wider = np.maximum(np.divide(needed, half, out=np.ones_like(half), where=half > 0), 1.0)
        low, high = (found.value - (found.value - end) * wider for end in (found.low, found.high))
        if within == RATE:
            agreed = ((1 - self.level) / 2) ** (1 / np.maximum(np.minimum(answered, self.prompts), self.seeds))
            low = np.where(found.value > 1 - UNANIMOUS, np.fmin(low, agreed), low)  # NaN compares false
            high = np.where(found.value < UNANIMOUS, np.fmax(high, 1 - agreed), high)
        return Estimate(found.value, np.clip(low, *within), np.clip(high, *within))

    def errors(self, values: Floats, answered: Floats | float = math.inf) -> tuple[Floats, Floats]:
        """Standard errors and their degrees of freedom, of the shape of one row; NaN errors without resamples.

        Args:
            values: (1 + R + L, ...).
            answered: As for `estimate`.
        """
        whole = _variance(self.drawn(values))
        prompts = np.broadcast_to(np.maximum(np.minimum(answered, self.prompts), 2.0), whole.shape)
        if self.seeds == 1:
            return np.sqrt(whole * prompts / (prompts - 1)), prompts - 1
        left = values[1 + self.resamples :]
        of_seeds = (len(left) - 1) * left.var(axis=0)
        of_seeds = np.where(np.isnan(of_seeds), whole, of_seeds)  # a policy of one seed: all may be the seed's
        whole = np.fmax(whole, of_seeds)
        rest = whole - of_seeds
        spread = of_seeds**2 / (self.seeds - 1) + rest**2 / (prompts - 1)
        freedom = np.divide(whole**2, spread, out=np.ones_like(spread), where=spread > 0)
        return np.sqrt(whole), freedom

    def above(self, values_RM: Floats) -> Floats:
        """Confidence that one number is above another (M, M), 1/2 on the diagonal; of Student's t, as the intervals.

        A share of resamples would be 1 for every other pair of equal policies that were trained with two seeds, as
        both agree by accident. Where nothing moves over the resamples, all prompts agreed: with a probability of 1/2^N
        they do so by accident.

        Args:
            values_RM: (1 + R + L, M).
        """
        gaps_RMM = values_RM[:, :, None] - values_RM[:, None, :]
        if not self.resamples:
            return np.full(gaps_RMM.shape[1:], np.nan)
        error, freedom = self.errors(gaps_RMM)
        sure = 0.5 + np.sign(gaps_RMM[0]) * (0.5 - 0.5 ** max(self.prompts, self.seeds))
        steps = np.divide(gaps_RMM[0], error, out=np.zeros_like(error), where=error > 0)
        found: Floats = np.where(error == 0, sure, stdtr(freedom, steps))
        return np.where(np.isnan(gaps_RMM[0]) | np.isnan(error), np.nan, found)


def estimate(values: Floats, level: float) -> Estimate:
    """The data's own numbers, with percentile intervals over the resamples.

    Args:
        values: (1 + R, ...); resamples with NaN are left out of the interval of that number.
        level: Share of resamples inside.
    """
    shape = values.shape[1:]
    flat = values[1:].reshape(len(values) - 1, math.prod(shape))
    low, high = quantiles(flat, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(np.asarray(values[0]), low.reshape(shape), high.reshape(shape))


def _variance(values_R: Floats) -> Floats:
    """Over rows that are not NaN; NaN where there are none."""
    held = ~np.isnan(values_R)
    number = held.sum(axis=0)
    some = np.where(number > 0, number, np.nan)
    mean = np.where(held, values_R, 0.0).sum(axis=0) / some
    found: Floats = np.where(held, (values_R - mean) ** 2, 0.0).sum(axis=0) / some
    return found
