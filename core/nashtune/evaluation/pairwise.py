"""Means of comparisons between every two of several policies, for many resamples of the prompts at once.

Legend: M = policies, C = M (M - 1) / 2 pairs of policies in the order of itertools.combinations, N = prompts, K =
rows of values, R = resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def weighted_means(values_KN: NDArray[np.float64], weights_RN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of each row over its values that are not NaN (R, K); NaN where it has none.

    Args:
        values_KN: By row and prompt.
        weights_RN: How often each prompt counts, one row a resample.
    """
    held = ~np.isnan(values_KN)
    totals_RK, numbers_RK = weights_RN @ np.where(held, values_KN, 0.0).T, weights_RN @ held.T.astype(np.float64)
    return np.divide(totals_RK, numbers_RK, out=np.full_like(totals_RK, np.nan), where=numbers_RK > 0)


def means_over_others(rates_RC: NDArray[np.float64], policies: int) -> NDArray[np.float64]:
    """Mean of each policy's win rates (R, M); NaN where one of them is.

    Args:
        rates_RC: Win rates of the first policy of each pair.
        policies: M.
    """
    average_RM = np.zeros((len(rates_RC), policies))
    for c, (i, j) in enumerate(combinations(range(policies), 2)):
        average_RM[:, i] += rates_RC[:, c] / (policies - 1)
        average_RM[:, j] += (1 - rates_RC[:, c]) / (policies - 1)
    return average_RM


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
    """The matrices (..., M, M) with these triangles (..., C) above and below their diagonals, which are one half."""
    rates = np.full((*above.shape[:-1], policies, policies), 0.5)
    rows, columns = np.triu_indices(policies, 1)  # the order of itertools.combinations
    rates[..., rows, columns], rates[..., columns, rows] = above, below
    return rates
