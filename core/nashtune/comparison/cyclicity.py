"""How much of a win matrix goes in circles: its Hodge decomposition (Jiang, Lim, Yao, Ye, arXiv:0811.1067).

The log-odds A_ij = log P_ij / P_ji are antisymmetric. Least squares by differences r_i - r_j of scores give
r_i = mean_j A_ij, and what is left, the cyclic part, is orthogonal to all such differences. Its share of the squared
norm is 0 where one score per policy makes the win rates by the Bradley-Terry model, the one of Elo, and 1 for
rock-paper-scissors. (Of P - 1/2 it would not be: there, scores whose differences are large do not add up.)

A pair that one policy has won every time has infinite log-odds. It is counted with one imagined tie, as for Elo; all
others are counted as they are.

The share is also above 0 for an order without any circle where log-odds do not add up: three policies of which each
always beats all below it have 1/9. So the share tells whether scores explain the rates, and the list of circles
whether an order exists.

Legend: M = policies, R = rows (data and resamples; row 0 is the data).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from nashtune.comparison.elo import NEVER
from nashtune.comparison.ratings import Cycle
from nashtune.evaluation.estimate import Floats
from nashtune.evaluation.pairwise import from_triangles

ROUNDING = 1e-24
"""Share of the squares that is none but for rounding."""


def log_odds(rates_RC: Floats, counts_RC: Floats, policies: int) -> Floats:
    """Finite and antisymmetric (R, M, M), from the win rates of the first policy of each pair.

    Args:
        rates_RC: NaN where a pair had no comparisons.
        counts_RC: How many comparisons each pair had: those of a pair without a loss decide what its tie weighs.
        policies: M.
    """
    certain = (rates_RC < NEVER) | (rates_RC > 1 - NEVER)  # NaN compares false
    finite_RC = np.where(certain, (counts_RC * rates_RC + 0.5) / (counts_RC + 1), rates_RC)
    odds_RC = np.log(finite_RC) - np.log1p(-finite_RC)
    return from_triangles(odds_RC, -odds_RC, policies) * (1 - np.eye(policies))


def cyclic_part(A_RMM: Floats) -> Floats:
    """What differences of scores leave of the log-odds (R, M, M)."""
    scores_RM = A_RMM.mean(axis=-1)
    left: Floats = A_RMM - (scores_RM[:, :, None] - scores_RM[:, None, :])
    return left


def cyclic_shares(A_RMM: Floats) -> Floats:
    """Squared norm of the cyclic part over that of the log-odds (R,); NaN where all are 0 or one is missing."""
    whole_R, cyclic_R = squares(A_RMM), squares(cyclic_part(A_RMM))
    share_R = np.divide(cyclic_R, whole_R, out=np.full_like(whole_R, np.nan), where=whole_R > 0)
    return np.where(share_R < ROUNDING, 0.0, share_R)  # NaN compares false


def cycles(P_RMM: Floats, policies: Sequence[str], level: float) -> tuple[Cycle, ...]:
    """Circles of three policies, in the data and in at least `level` of the resamples, surest first."""
    found = []
    for i, j, k in combinations(range(len(policies)), 3):
        for a, b, c in ((i, j, k), (i, k, j)):
            steps_R3 = P_RMM[:, [a, b, c], [b, c, a]]
            circle_R = np.all(steps_R3 > 0.5, axis=1)  # NaN compares false
            if len(circle_R) > 1 and circle_R[0] and circle_R[1:].mean() >= level:
                first, second, third = (float(rate) for rate in steps_R3[0])
                names = (policies[a], policies[b], policies[c])
                found.append(Cycle(policies=names, rates=(first, second, third), confidence=float(circle_R[1:].mean())))
    return tuple(sorted(found, key=lambda one: -one.confidence))


def squares(A_RMM: Floats) -> Floats:
    """Squared norms (R,)."""
    total: Floats = (A_RMM**2).sum(axis=(1, 2))
    return total
