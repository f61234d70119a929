"""Win rates as if all answers were equally long, after AlpacaEval 2 (Dubois et al. 2024, arXiv:2404.04475).

A judge that favours long answers favours a policy that has learnt to write them. A logistic regression separates the
two:

    log-odds of P(i's answer > j's answer) = theta_ij + phi tanh((length_i - length_j) / scale)

and the length-controlled win rate is the prediction at equal lengths, sigmoid(theta_ij). It keeps what a win rate has:
P_ij + P_ji = 1, 1/2 for a policy against itself, and it is the plain win rate if length has no effect.

Departures from AlpacaEval 2, which compares one policy with one baseline at a time:
- phi is one number, of the judge, for all pairs of policies (there: one per policy). It is found from how answers of
  the same two policies differ, so a policy that is both longer and better does not pass as an effect of length.
- scale is the root mean square of all differences, in tokens (there: the standard deviation of one pair's, in
  characters).
- No term for the difficulty of an instruction, which there comes from the data of many other policies.
- phi has a normal prior of standard deviation 5, to be finite where length decides everything (there: an L1 penalty on
  all coefficients, theta included, chosen by cross-validation, and annotations of two gamed baselines with a weight).
- The rate is the prediction at equal lengths itself (there: its mean over prompts, each with its difficulty).
- Where a policy has won every comparison of a pair, lengths cannot explain what does not vary: it keeps 1, and the
  pair says nothing of phi.
- A pair of policies of which one is nearly always the longer has no number: equal lengths were not seen, and what the
  regression says of them depends on the shape of its curve alone. It says nothing of phi either.

Legend: M = policies, C = M (M - 1) / 2 pairs, K = seeds times prompts, R = rows (data and resamples).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from nashtune.comparison.elo import NEVER
from nashtune.comparison.newton import minimise
from nashtune.evaluation.estimate import Floats
from nashtune.evaluation.pairwise import from_triangles, weighted_means

PRIOR = 1 / 5.0**2
"""Precision of phi's prior."""
FLAT = 1e-12
"""Curvature below this is rounding; a step is then too short instead of infinite."""
OVERLAP = 0.1
"""Where fewer answers than this are the shorter ones, or the longer ones, equal lengths are an extrapolation."""
CHUNK = 2**21
"""Numbers that are in memory at once, several times over."""


def overlaps(p_CK: Floats, tokens_MK: Floats) -> Floats:
    """How far lengths of two policies overlap (C,), 0 to 1; NaN where no answers were judged.

    It is the smaller of two shares of the judged pairs of answers: those in which the first is not the longer one, and
    those in which it is not the shorter one.

    Args:
        p_CK: P(first > second), NaN where there was no answer.
        tokens_MK: Lengths of the answers, NaN where there is none.
    """
    longer_CK, seen_CK = _longer(p_CK, tokens_MK)
    number_C = seen_CK.sum(axis=1)
    fewer_C = np.minimum(((longer_CK >= 0) & seen_CK).sum(axis=1), ((longer_CK <= 0) & seen_CK).sum(axis=1))
    found: Floats = np.divide(fewer_C, number_C, out=np.full(len(p_CK), np.nan), where=number_C > 0)
    return found


def means_over_comparable(rates_RC: Floats, overlap_C: Floats, policies: int) -> Floats:
    """Mean of each policy's rates over the others whose lengths overlap with its own (R, M); NaN where none do."""
    left_out_C = np.where(overlap_C < OVERLAP, np.nan, 1.0)  # NaN compares false
    held_MM = ~np.isnan(from_triangles(left_out_C, left_out_C, policies)) & ~np.eye(policies, dtype=bool)
    P_RMM = np.where(held_MM, from_triangles(rates_RC, 1 - rates_RC, policies), 0.0)
    number_M = held_MM.sum(axis=1)
    found: Floats = P_RMM.sum(axis=2) / np.where(number_M > 0, number_M, np.nan)
    return found


def length_controlled(p_CK: Floats, tokens_MK: Floats, weights_RK: Floats) -> tuple[Floats, Floats, float]:
    """Fit the regression to the data and to each resample.

    Args:
        p_CK: P(first > second), NaN where there was no answer.
        tokens_MK: Lengths of the answers, NaN where there is none.
        weights_RK: How often each answer counts.

    Returns:
        Win rates of the first policy of each pair at equal lengths (R, C), NaN where no answers were compared or
        lengths overlap too little; phi (R,), NaN where that is so everywhere; scale in tokens.
    """
    longer_CK, seen_CK = _longer(p_CK, tokens_MK)
    seen_CK &= ~(overlaps(p_CK, tokens_MK) < OVERLAP)[:, None]  # NaN compares false
    scale = float(np.sqrt((longer_CK[seen_CK] ** 2).mean())) if seen_CK.any() else float("nan")
    x_CK = np.tanh(np.where(seen_CK, longer_CK, 0.0) / (scale if scale > 0 else 1.0))
    p_CK = np.where(seen_CK, p_CK, np.nan)
    rates_RC = weighted_means(p_CK, weights_RK)
    if not seen_CK.any():
        return rates_RC, np.full(len(weights_RK), np.nan), scale
    effect_R = np.zeros(len(weights_RK))
    rows = max(1, CHUNK // p_CK.size)
    for start in range(0, len(weights_RK), rows):
        part = slice(start, start + rows)
        rates_RC[part], effect_R[part] = _fit(np.nan_to_num(p_CK), x_CK, seen_CK, weights_RK[part], rates_RC[part])
    return rates_RC, effect_R, scale


def _longer(p_CK: Floats, tokens_MK: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """By how much the first answer is longer, and whether the two were judged and have lengths (C, K)."""
    first, second = np.triu_indices(len(tokens_MK), 1)
    longer_CK = tokens_MK[first] - tokens_MK[second]
    return longer_CK, ~np.isnan(p_CK) & ~np.isnan(longer_CK)


def _fit(
    p_CK: Floats, x_CK: Floats, seen_CK: NDArray[np.bool_], weights_RK: Floats, rates_RC: Floats
) -> tuple[Floats, Floats]:
    """Win rates at equal lengths and phi, from the plain win rates."""
    mixed_RC = (rates_RC > NEVER) & (rates_RC < 1 - NEVER)  # NaN compares false
    rest_CK = 1.0 - p_CK
    weights_RCK = weights_RK[:, None, :] * (seen_CK * mixed_RC[:, :, None])

    def look(u_RD: Floats) -> tuple[Floats, Floats]:
        theta_RC, phi_R = u_RD[:, :-1], u_RD[:, -1]
        odds = theta_RC[:, :, None] + phi_R[:, None, None] * x_CK
        # by the smaller of the two chances: of a saturated judge's p less q rounding alone would be left
        above, far = odds >= 0, np.abs(odds)
        small = np.exp(-far)
        less, unlikely = small / (1.0 + small), np.where(above, rest_CK, p_CK)
        value_R = np.einsum("rck,rck->r", weights_RCK, np.log1p(small) + far * unlikely) + 0.5 * PRIOR * phi_R**2
        off = less - unlikely
        np.negative(off, out=off, where=above)  # q - p
        off *= weights_RCK
        curvature = weights_RCK * (less * (1.0 - less))
        down_RC = off.sum(axis=2)
        down_R = np.einsum("rck,ck->r", off, x_CK) + PRIOR * phi_R
        # the Hessian is an arrow: theta's own curvatures, one row that joins them with phi, and phi's
        own_RC = np.maximum(curvature.sum(axis=2), FLAT)
        joint_RC = np.einsum("rck,ck->rc", curvature, x_CK)
        own_R = np.einsum("rck,ck->r", curvature, x_CK**2) + PRIOR
        step_R = (down_R - (joint_RC * down_RC / own_RC).sum(axis=1)) / (own_R - (joint_RC**2 / own_RC).sum(axis=1))
        step_RC = (down_RC - joint_RC * step_R[:, None]) / own_RC
        return value_R, np.concatenate([step_RC, step_R[:, None]], axis=1)

    start_RC = logit(np.where(mixed_RC, rates_RC, 0.5))
    found_RD = minimise(look, np.concatenate([start_RC, np.zeros((len(rates_RC), 1))], axis=1))
    return np.where(mixed_RC, expit(found_RD[:, :-1]), rates_RC), found_RD[:, -1]
