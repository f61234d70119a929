"""What each policy gained, and the KL divergence it spent on that.

Legend: M = policies, S = seeds, N = prompts, R = resamples; rows as in `nashtune.evaluation.bootstrap`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nashtune.comparison.judged import PER_TOKEN, START, Judged
from nashtune.comparison.ratings import Frontier
from nashtune.evaluation.bootstrap import ANY, RATE, Resampling
from nashtune.evaluation.estimate import Floats
from nashtune.evaluation.pairwise import from_triangles, weighted_means


def frontier(judged: Judged, rows: Resampling, over_anchor_RM: Floats) -> Frontier | None:
    """Mean rewards, or win rates over the anchor, against KL divergences; None where none were measured.

    Args:
        judged: The comparison.
        rows: How often each answer counts in each row.
        over_anchor_RM: Win rate of every policy over the anchor in each row.
    """
    if judged.kl is None:
        return None
    m = len(judged.policies)
    kl_RM = weighted_means(judged.kl.reshape(m, -1), rows.weights_RK)
    if judged.reward is None:
        gain_RM, axis, within = over_anchor_RM, f"win rate over {judged.policies[judged.anchor]}", RATE
        gain_by_seed = _win_rates_by_seed(judged)
    else:
        gain_RM, axis, within = weighted_means(judged.reward.reshape(m, -1), rows.weights_RK), "reward", ANY
        gain_by_seed = _by_seed(judged.reward)
    known_RM = ~np.isnan(kl_RM + gain_RM)
    on_RM = _on_frontier(np.maximum(kl_RM, 0.0), gain_RM)  # an estimate below 0 is nearer to the start by noise alone
    if START in judged.policies:
        start = judged.policies.index(START)
        on_RM[:, start] = known_RM[:, start]  # KL(start || start) is 0, and that of all others above it
    drawn = rows.drawn(known_RM.astype(np.float64)).sum(axis=0)
    return Frontier(
        kl=rows.estimate(kl_RM, (0.0, math.inf) if judged.kl_estimator == PER_TOKEN else ANY),
        gain=rows.estimate(gain_RM, within),
        axis=axis,
        kl_by_seed=_by_seed(judged.kl),
        gain_by_seed=gain_by_seed,
        best=tuple(name for name, one in zip(judged.policies, on_RM[0], strict=True) if one),
        share=rows.drawn(on_RM.astype(np.float64)).sum(axis=0) / np.where(drawn > 0, drawn, np.nan),
        estimator=judged.kl_estimator,
    )


def _by_seed(values_MSN: Floats) -> Floats:
    """Means over prompts (M, S)."""
    m, seeds, prompts = values_MSN.shape
    return weighted_means(values_MSN.reshape(m * seeds, prompts), np.ones((1, prompts))).reshape(m, seeds)


def _win_rates_by_seed(judged: Judged) -> Floats:
    """Of each policy over the anchor (M, S)."""
    rates_SC = _by_seed(judged.p).T
    by_seed: Floats = from_triangles(rates_SC, 1 - rates_SC, len(judged.policies))[:, :, judged.anchor].T
    return by_seed


def _on_frontier(kl_RM: Floats, gain_RM: Floats) -> NDArray[np.bool_]:
    """Whether no other policy has at least this one's gain for at most its KL divergence, one of them strictly."""
    on_RM: NDArray[np.bool_] = ~np.isnan(kl_RM + gain_RM)
    for other_R1, its_gain_R1 in zip(kl_RM.T[:, :, None], gain_RM.T[:, :, None], strict=True):
        no_worse_RM = (other_R1 <= kl_RM) & (its_gain_R1 >= gain_RM)  # NaN compares false
        on_RM &= ~(no_worse_RM & ((other_R1 < kl_RM) | (its_gain_R1 > gain_RM)))
    return on_RM
