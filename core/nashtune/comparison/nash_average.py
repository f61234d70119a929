"""Nash averaging (Balduzzi et al. 2018, arXiv:1806.02643): rating policies by the best mixture of them.

Two players each choose a policy and get its win rate. In a Nash mixture p no policy has a win rate above 1/2, and of
all such mixtures the one of maximum entropy is unique, does not depend on copies of a policy that were entered twice,
and rates a policy by its win rate over p. Departure: the paper plays the game of log-odds, here it is the game of win
rates themselves, as a policy's win rate over a mixture is the mean of its win rates (of log-odds it is not), and a
policy that always wins is no infinity.

A linear program finds which policies have weight in some Nash mixture. Where the equations on them have one solution,
that is the answer, to rounding; where they leave a choice, an interior-point method finds the most even one.

Legend: M = policies, R = rows (data and resamples); A = P - 1/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from nashtune.comparison.most_even import most_even
from nashtune.comparison.ratings import NashAverage
from nashtune.errors import CheckFailed
from nashtune.evaluation.bootstrap import estimate
from nashtune.evaluation.estimate import Estimate, Floats
from nashtune.games.equilibrium import duality_gap

STRICT = 1e-9
"""Probabilities and losses below this are none."""
ROUNDING = 1e-12
DIGITS = (8, 6, 5, 4)
"""Win rates that agree to so many are equal, fewer if no mixture is found with more: those of a saturated judge differ
from 1/2 by 1e-9, which a linear program cannot tell from nothing."""
WIDEST_GAP = 1e-7


def nash_averages(P_RMM: Floats) -> Floats:
    """The maximum-entropy Nash mixture of each row (R, M); NaN where a win rate is missing or the search failed.

    Args:
        P_RMM: Win rates of row over column.
    """
    mixtures_RM = np.full(P_RMM.shape[:2], np.nan)
    known: list[NDArray[np.bool_]] = []  # resamples share a few supports: to check one is quicker than to search
    for P, row in zip(P_RMM, mixtures_RM, strict=True):
        if not np.isnan(P).any():
            with suppress(CheckFailed):  # one row of many: `nash_average` counts it
                row[:] = _nash_average(P, known)
    return mixtures_RM


def nash_average(
    P_RMM: Floats, mixtures_RM: Floats, win_rate: Estimate, level: float, policies: Sequence[str]
) -> NashAverage:
    """What resamples say of the mixture of the data, which is row 0.

    Args:
        P_RMM: Win rates of row over column.
        mixtures_RM: Of `nash_averages`.
        win_rate: Their intervals (M, M).
        level: Share of resamples inside an interval.
        policies: Names (M).
    """
    missing_R = np.isnan(mixtures_RM[1:]).any(axis=1)
    drawn_RM = mixtures_RM[1:][~missing_R]
    held = mixtures_RM[0] > STRICT  # NaN compares false
    share = (drawn_RM > STRICT).mean(axis=0) if len(drawn_RM) else np.full(len(held), np.nan)
    sure = held & (share >= level) & _settled(held, win_rate)
    return NashAverage(
        weight=estimate(mixtures_RM, level),
        value=estimate(np.einsum("rij,rj->ri", P_RMM, mixtures_RM), level),
        share=share,
        determined=bool(held.any() and sure[held].all() and (share[~held] <= 1 - level + STRICT).all()),
        sure=tuple(name for name, one in zip(policies, sure, strict=True) if one),
        failed=int((missing_R & ~np.isnan(P_RMM[1:]).any(axis=(1, 2))).sum()),
    )


def _settled(held: NDArray[np.bool_], win_rate: Estimate) -> NDArray[np.bool_]:
    """For which policies intervals allow what shares of resamples say, as resamples of few prompts may all agree (M,).

    The only policy of a mixture is to beat all others. One of several is to lose to another, or it could be the only
    one; where it ties with the rest of them in every comparison that is what they have in common.
    """
    if held.sum() == 1:
        return held & ((win_rate.low > 0.5) | held).all(axis=1)
    ties_MM = (win_rate.low == 0.5) & (win_rate.high == 0.5)
    found: NDArray[np.bool_] = (win_rate.high < 0.5).any(axis=1) | (ties_MM | ~held).all(axis=1)
    return found


def _nash_average(P: Floats, known: list[NDArray[np.bool_]]) -> Floats:
    """Of one row.

    Raises:
        CheckFailed: what was found is no equilibrium.
    """
    for digits in DIGITS:
        with suppress(CheckFailed, np.linalg.LinAlgError):
            mixture = _of_rounded(P, digits, known)
            if duality_gap(P, mixture) <= max(WIDEST_GAP, 10.0**-digits):  # NaN compares false
                return mixture
    raise CheckFailed(f"no Nash mixture of these win rates was found: {P.tolist()}")


def _of_rounded(P: Floats, digits: int, known: list[NDArray[np.bool_]]) -> Floats:
    """With win rates that agree to so many digits taken for equal."""
    A = np.round(P - 0.5, digits)
    for place, support in enumerate(known):
        mixture = _only_one(A, support)
        if mixture is not None:
            known.insert(0, known.pop(place))
            return _exact(P, mixture)
    inside, support, apart = _complementary(A)
    mixture = _only_one(A, support)
    if mixture is not None:
        known.insert(0, support)
        return _exact(P, mixture)
    mixture = np.zeros(len(A))
    mixture[support] = _most_even(A, inside[support], support, apart)
    return mixture


def _only_one(A: Floats, support: NDArray[np.bool_]) -> Floats | None:
    """The Nash mixture with this support (M,), if there is one and it is the only Nash mixture there is.

    It is if its equations have one solution, that is above 0, and every policy outside loses against it: any other
    Nash mixture would have to tie with this one, and so lie in its support and solve the same equations.
    """
    equations, right = _ties(A, support)
    solution, _, rank, _ = np.linalg.lstsq(equations, right, rcond=1e-12)
    if rank < support.sum() or np.abs(equations @ solution - right).max() > STRICT or solution.min() < STRICT:
        return None
    mixture = np.zeros(len(A))
    mixture[support] = solution
    return mixture if (A[~support] @ mixture < -STRICT).all() else None


def _exact(P: Floats, mixture: Floats) -> Floats:
    """The same mixture of the win rates that were not rounded; as it is where these have none."""
    support = mixture > 0
    equations, right = _ties(P - 0.5, support)
    found = np.zeros(len(P))
    found[support] = np.linalg.lstsq(equations, right, rcond=1e-12)[0]
    better = found[support].min() > 0 and np.abs(equations @ found[support] - right).max() < ROUNDING
    return found if better else mixture


def _ties(A: Floats, support: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Equations of mixtures of these policies that tie with each of them, and what they are to be equal to."""
    size = int(support.sum())
    return np.vstack([A[np.ix_(support, support)], np.ones(size)]), np.r_[np.zeros(size), 1.0]


def _complementary(A: Floats) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """A Nash mixture (M,) in which each policy has weight or loses against it, and which do the one and the other.

    There always is one (Goldman and Tucker 1956), and all Nash mixtures lie in its support. Mixtures scaled by any
    factor form a cone in which all these weights and losses can be 1 or more: maximise sum t + sum s over t <= p,
    s <= -A p and 0 <= s, t <= 1.
    """
    from scipy.optimize import linprog

    m = len(A)
    one, none = np.eye(m), np.zeros((m, m))
    found = linprog(
        np.r_[np.zeros(m), -np.ones(2 * m)],
        A_ub=np.block([[-one, one, none], [A, none, one]]),
        b_ub=np.zeros(2 * m),
        bounds=[(0, None)] * m + [(0, 1)] * (2 * m),
        method="highs",
    )
    if not found.success:
        raise CheckFailed(f"the linear program of the Nash average failed: {found.message}")
    p, weighty, losing = np.split(found.x, 3)
    return p / p.sum(), weighty > 0.5, losing > 0.5


def _most_even(A: Floats, start: Floats, support: NDArray[np.bool_], apart: NDArray[np.bool_]) -> Floats:
    """Probabilities of the policies in the support: of all Nash mixtures those of maximum entropy.

    Args:
        A: Win rates less 1/2.
        start: A Nash mixture's probabilities of the policies in the support.
        support: Policies that have weight in it.
        apart: Policies that lose against it; a policy that does neither, but for rounding, is to tie.
    """
    equations = np.vstack([A[np.ix_(~apart, support)], np.ones(int(support.sum()))])
    right = np.r_[np.zeros(len(equations) - 1), 1.0]
    # the linear program is exact to 1e-7
    exact = start - np.linalg.lstsq(equations, equations @ start - right, rcond=1e-12)[0]
    return most_even(exact, equations, A[np.ix_(apart, support)])
