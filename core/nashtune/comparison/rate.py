"""From single judgements to ratings with intervals: the one place that knows them all.

Legend: M = policies, C = M (M - 1) / 2 pairs in the order of itertools.combinations, S = seeds, N = prompts, K = S N,
R = rows: 0 is the data, the others are resamples and the data without a seed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np

from nashtune.comparison.absent import with_absent
from nashtune.comparison.cyclicity import cycles, cyclic_shares, log_odds
from nashtune.comparison.cyclicity_noise import FAINT, noise_share
from nashtune.comparison.elo import chains, ratings
from nashtune.comparison.frontier import frontier
from nashtune.comparison.judged import Judged
from nashtune.comparison.length_control import length_controlled, means_over_comparable, overlaps
from nashtune.comparison.nash_average import nash_average, nash_averages
from nashtune.comparison.rating_notes import notes
from nashtune.comparison.ratings import Cyclicity, Elo, LengthControlled, Ratings
from nashtune.errors import InputError
from nashtune.evaluation.bootstrap import RATE, Resampling, resampled
from nashtune.evaluation.pairwise import from_triangles, means_over_others, weighted_means


def rate(judged: Judged, *, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> Ratings:
    """Win rates, length-controlled win rates, Elo, Nash average, cyclicity and frontier of a comparison.

    The same input gives the same numbers. Ten policies with three seeds and 256 prompts take under a minute.

    Args:
        judged: Every judgement.
        seed: Of the resampling.
        resamples: How many, for all intervals.
        level: Share of resamples inside an interval.

    Raises:
        InputError: no two answers were compared.
    """
    m = len(judged.policies)
    compared = ~np.all(np.isnan(judged.p), axis=(1, 2))
    rated = sorted({i for pair, one in zip(combinations(range(m), 2), compared, strict=True) if one for i in pair})
    if not rated:
        raise InputError(
            f"comparison: none of the {judged.p.size} pairs of answers has a verdict: look at the answers "
            "(did they end within the limit of tokens?) and at what the judge said of them"
        )
    found = _rate(judged.only(rated), seed=seed, resamples=resamples, level=level)
    return found if len(rated) == m else with_absent(found, judged, rated)


def _rate(judged: Judged, *, seed: int, resamples: int, level: float) -> Ratings:
    pairs, seeds, prompts = judged.p.shape
    m, anchor = len(judged.policies), judged.anchor
    rows = Resampling(seeds, prompts, resamples, level=level, seed=seed)
    weights_RK, p_CK = rows.weights_RK, judged.p.reshape(pairs, -1)
    tokens_MK = judged.tokens.reshape(m, -1)

    rates_RC = weighted_means(p_CK, weights_RK)
    P_RMM = from_triangles(rates_RC, 1 - rates_RC, m)
    held_CN = ~np.isnan(judged.p).all(axis=1)
    held_MM = from_triangles(held_CN.sum(axis=1), held_CN.sum(axis=1), m) + prompts * np.eye(m)
    held_M = held_MM.min(axis=1)
    win_rate = rows.estimate(P_RMM, RATE, held_MM)
    hard_RC = weighted_means(judged.hard.p.reshape(pairs, -1), weights_RK)

    overlap_C = overlaps(p_CK, tokens_MK)
    equal_RC, effect_R, scale = length_controlled(p_CK, tokens_MK, weights_RK)
    counts_RC = weights_RK @ (~np.isnan(p_CK)).T.astype(np.float64)
    chains_RMM = chains(rates_RC, counts_RC, m)
    rating_RM, imagined_R = ratings(rates_RC, counts_RC, chains_RMM, anchor)
    # what jumps, or is not near a normal distribution, has resamples alone
    drawn_RC, drawn_R = rates_RC[: 1 + rows.resamples], slice(1 + rows.resamples)
    odds_RMM = log_odds(drawn_RC, counts_RC[drawn_R], m)
    fit_RM, _ = ratings(rates_RC[:1], counts_RC[:1], chains_RMM[:1], anchor, tie=FAINT)
    noise, chance = noise_share(judged.p, odds_RMM[0], fit_RM[0], tables=rows.resamples, seed=seed)
    nash = nash_average(P_RMM[drawn_R], nash_averages(P_RMM[drawn_R]), win_rate, level, judged.policies)
    controlled = LengthControlled(
        win_rate=rows.estimate(from_triangles(equal_RC, 1 - equal_RC, m), RATE),
        mean=rows.estimate(means_over_comparable(equal_RC, overlap_C, m), RATE),
        effect=rows.estimate(effect_R * np.tanh(1.0)),  # of a difference of one scale
        scale=scale,
        tokens=rows.estimate(weighted_means(tokens_MK, weights_RK), (0.0, math.inf)),
        overlap=from_triangles(overlap_C, overlap_C, m) + 0.5 * np.eye(m),
    )

    found = Ratings(
        policies=judged.policies,
        anchor=judged.policies[anchor],
        seeds=seeds,
        prompts=prompts,
        comparisons=int((~np.isnan(judged.p)).sum()),
        unanswered=int(judged.unanswered.sum()),
        resampled=resampled(seeds, prompts),
        resamples=rows.resamples,
        level=level,
        win_rate=win_rate,
        mean_win_rate=rows.estimate(means_over_others(rates_RC, m), RATE, held_M),
        hard_win_rate=rows.estimate(means_over_others(hard_RC, m), RATE, held_M),
        length_controlled=controlled,
        elo=Elo(
            rating=rows.estimate(rating_RM),
            imagined=bool(imagined_R[0]),
            imagined_share=float(rows.drawn(imagined_R.astype(np.float64)).mean()) if rows.resamples else float("nan"),
        ),
        above=rows.above(rating_RM),
        nash=nash,
        cyclicity=Cyclicity(
            share=rows.percentiles(cyclic_shares(odds_RMM)),
            noise=noise,
            chance=chance,
            cycles=cycles(P_RMM[drawn_R], judged.policies, level),
            triples=math.comb(m, 3),
        ),
        frontier=frontier(judged, rows, P_RMM[:, :, anchor]),
        notes=(),
    )
    return replace(found, notes=notes(judged, found, rates_RC[0], chains_RMM[0], overlap_C))
