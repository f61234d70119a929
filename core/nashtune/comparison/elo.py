"""Elo ratings: the Bradley-Terry model P(i beats j) = 1 / (1 + 10^((r_j - r_i) / 400)), by maximum likelihood.

A win of probability p counts as p wins and 1 - p losses, a tie as half of each. The order of the comparisons does not
matter, unlike in the chess clubs' running update.

The likelihood has a finite maximum only if every policy has beaten every other, directly or in a chain (Ford 1957).
Where a policy has won all its comparisons, or a group all of theirs against the rest, its rating would be infinite.
Then one imagined tie is added to every pair of policies, and the result says so; everywhere else nothing is added.

Legend: M = policies, C = M (M - 1) / 2 pairs in the order of itertools.combinations, R = rows (data and resamples).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from nashtune.comparison.newton import minimise
from nashtune.evaluation.estimate import Floats

ANCHOR = 1000.0
POINTS = 400.0 / np.log(10.0)
"""Of one nat of log-odds."""
NEVER = 1e-9
"""Share of wins that is none but for a saturated judge, who is never quite sure."""
APART = 1e-12


def chains(rates_RC: Floats, counts_RC: Floats, policies: int) -> NDArray[np.bool_]:
    """Whether policy i has beaten policy j, directly or in a chain (R, M, M); every policy has beaten itself.

    Args:
        rates_RC: Win rates of the first policy of each pair.
        counts_RC: How many comparisons each pair had.
        policies: M.
    """
    first, second = np.triu_indices(policies, 1)
    beaten_RMM = np.zeros((len(rates_RC), policies, policies), dtype=bool)
    beaten_RMM[:, first, second] = (counts_RC > 0) & (rates_RC > NEVER)  # NaN compares false
    beaten_RMM[:, second, first] = (counts_RC > 0) & (rates_RC < 1 - NEVER)
    return _closure(beaten_RMM)


def ratings(
    rates_RC: Floats, counts_RC: Floats, chains_RMM: NDArray[np.bool_], anchor: int, *, tie: float = 1.0
) -> tuple[Floats, NDArray[np.bool_]]:
    """Maximum-likelihood ratings.

    Args:
        rates_RC: Win rates of the first policy of each pair; NaN where it had no comparisons.
        counts_RC: How many comparisons each pair had.
        chains_RMM: From `chains`.
        anchor: The policy with 1000 points.
        tie: What an imagined tie counts; the smaller, the nearer to the maximum at infinity.

    Returns:
        Ratings (R, M), NaN where nothing connects a policy with the anchor; and whether ties were imagined (R,).
    """
    m = chains_RMM.shape[-1]
    first, second = np.triu_indices(m, 1)
    linked_RM = _closure(chains_RMM | chains_RMM.swapaxes(1, 2))[:, :, anchor]
    mutual_RM = (chains_RMM & chains_RMM.swapaxes(1, 2))[:, :, anchor]
    imagined_R: NDArray[np.bool_] = np.any(linked_RM & ~mutual_RM, axis=1)
    held_RC = (counts_RC > 0) & linked_RM[:, first] & linked_RM[:, second]
    ties_RC = tie * (imagined_R[:, None] & held_RC)
    games_RC = np.where(held_RC, counts_RC, 0.0) + ties_RC
    known_RC = np.nan_to_num(rates_RC)
    wins_RC, losses_RC = (
        np.where(held_RC, counts_RC * share_RC, 0.0) + 0.5 * ties_RC for share_RC in (known_RC, 1 - known_RC)
    )

    free = [i for i in range(m) if i != anchor]
    design_CF = (np.eye(m)[first] - np.eye(m)[second])[:, free]
    # a policy that nothing links has no gradient: any curvature will do
    apart_RFF = np.eye(m - 1) * np.where(linked_RM[:, free], APART, 1.0)[:, None, :]

    def look(u_RF: Floats) -> tuple[Floats, Floats]:
        odds_RC = u_RF @ design_CF.T
        # by the smaller of the two chances: of wins less those expected a saturated judge leaves rounding alone
        far_RC, above_RC = np.abs(odds_RC), odds_RC > 0
        less_RC, unlikely_RC = expit(-far_RC), np.where(above_RC, losses_RC, wins_RC)
        value_R = (games_RC * np.log1p(np.exp(-far_RC)) + unlikely_RC * far_RC).sum(axis=1)
        gradient_RF = (np.where(above_RC, 1.0, -1.0) * (unlikely_RC - games_RC * less_RC)) @ design_CF
        curvature_RC = games_RC * less_RC * (1 - less_RC)
        hessian_RFF = np.einsum("rc,cf,cg->rfg", curvature_RC, design_CF, design_CF, optimize=True) + apart_RFF
        return value_R, np.linalg.solve(hessian_RFF, gradient_RF[:, :, None])[:, :, 0]

    rating_RM = np.full(linked_RM.shape, ANCHOR)
    rating_RM[:, free] += POINTS * minimise(look, np.zeros((len(rates_RC), m - 1)))
    return np.where(linked_RM, rating_RM, np.nan), imagined_R


def _closure(links_RMM: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Everything that can be reached, by paths twice as long each time."""
    m = links_RMM.shape[-1]
    reached = links_RMM | np.eye(m, dtype=bool)
    for _ in range(m.bit_length()):
        steps = reached.astype(np.float64)
        reached = (steps @ steps) > 0
    return reached
