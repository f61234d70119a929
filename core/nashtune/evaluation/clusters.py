"""Means over rows that are not independent: rows of one prompt stand or fall together.

Legend: P = rows, G = clusters (prompts), R = bootstrap resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nashtune.evaluation.plain import plain

Floats = NDArray[np.float64]
CHUNK = 200  # resamples that are in memory at once: a resample holds a number for each cluster


@dataclass(frozen=True)
class Mean:
    """A weighted mean and its standard error; NaN where a single cluster shows no error.

    Args:
        mean: Of the values.
        se: Standard error, over clusters.
        rows: How many values.
    """

    mean: float
    se: float
    rows: int

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON, which has no NaN."""
        return {"mean": plain(self.mean), "se": plain(self.se), "pairs": self.rows}


def cluster_mean(values_P: Floats, weight_P: Floats, cluster_P: NDArray[np.int64]) -> Mean:
    """Weighted mean with the standard error of a ratio of two sums over clusters (linearised, factor G/(G - 1)).

    With equal weights and one row a cluster the error is the standard deviation (ddof 1) over the root of P.

    Args:
        values_P: Values.
        weight_P: Their weights, > 0.
        cluster_P: Number of the cluster of each, from 0.
    """
    if not len(values_P):
        return Mean(float("nan"), float("nan"), 0)
    value_G, weight_G = _sums(values_P, weight_P, cluster_P)
    kept = weight_G > 0
    value_G, weight_G = value_G[kept], weight_G[kept]
    count, total = len(weight_G), weight_G.sum()
    mean = float(value_G.sum() / total)
    off_G = value_G - mean * weight_G
    se = float(np.sqrt(np.sum(off_G**2) * count / (count - 1)) / total) if count > 1 else float("nan")
    return Mean(mean, se, len(values_P))


def bootstrap_interval(
    values_P: Floats,
    weight_P: Floats,
    cluster_P: NDArray[np.int64],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the weighted mean over resampled clusters.

    Args:
        values_P: Values.
        weight_P: Their weights, > 0.
        cluster_P: Number of the cluster of each, from 0; every number has a row.
        seed: Of the resampling.
        resamples: R.
        level: Share of resamples inside.
    """
    value_G, weight_G = _sums(values_P, weight_P, cluster_P)
    draws, means = np.random.default_rng(seed), []
    for first in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - first)
        counts_RG = draws.multinomial(len(value_G), [1 / len(value_G)] * len(value_G), size).astype(np.float64)
        means.append((counts_RG @ value_G) / (counts_RG @ weight_G))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sums(values_P: Floats, weight_P: Floats, cluster_P: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Of each cluster: weighted values, and weights (G,)."""
    count = int(cluster_P.max()) + 1
    value_G, weight_G = np.zeros(count), np.zeros(count)
    np.add.at(value_G, cluster_P, weight_P * values_P)
    np.add.at(weight_G, cluster_P, weight_P)
    return value_G, weight_G
