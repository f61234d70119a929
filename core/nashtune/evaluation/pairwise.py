"""Means of comparisons between every two of several policies, for many resamples of the prompts at once.

Legend: M = policies, C = M (M - 1) / 2 pairs of policies in the order of itertools.combinations, N = prompts, R =
resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def pairwise_means(
    p_CN: NDArray[np.float64], weights_RN: NDArray[np.float64], policies: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over the prompts that were answered, and over the pairs of each policy.

    Args:
        p_CN: P(first > second) by pair of policies and prompt (C, N); NaN where there was no answer.
        weights_RN: How often each prompt counts, one row a resample (R, N).
        policies: M.

    Returns:
        Win rates of the first policy of each pair (R, C), and means of each policy's win rates (R, M); NaN where no
        prompt was answered.
    """
    answered = ~np.isnan(p_CN)
    totals_RC, numbers_RC = weights_RN @ np.where(answered, p_CN, 0.0).T, weights_RN @ answered.T.astype(np.float64)
    rates_RC = np.divide(totals_RC, numbers_RC, out=np.full_like(totals_RC, np.nan), where=numbers_RC > 0)
    average_RM = np.zeros((len(weights_RN), policies))
    for c, (i, j) in enumerate(combinations(range(policies), 2)):
        average_RM[:, i] += rates_RC[:, c] / (policies - 1)
        average_RM[:, j] += (1 - rates_RC[:, c]) / (policies - 1)
    return rates_RC, average_RM


def quantiles(values: NDArray[np.float64], tails: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles of each column, over its values that are not NaN.

    Args:
        values: (R, K).
        tails: Q numbers in [0, 1].

    Returns:
        (Q, K); NaN where a column has no values.
    """
    columns = [column[~np.isnan(column)] for column in values.T]
    return np.array([np.quantile(c, tails) if len(c) else [np.nan, np.nan] for c in columns]).T


def from_triangles(above: NDArray[np.float64], below: NDArray[np.float64], policies: int) -> NDArray[np.float64]:
    """The matrix (M, M) with these triangles (C,) above and below its diagonal, which is one half."""
    rates = np.full((policies, policies), 0.5)
    rows, columns = np.triu_indices(policies, 1)  # the order of itertools.combinations
    rates[rows, columns], rates[columns, rows] = above, below
    return rates
