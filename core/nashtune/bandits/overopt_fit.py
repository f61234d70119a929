"""Laws of reward overoptimisation: gold reward as a function of d = sqrt(KL), and their fit.

Gao, Schulman, Hilton, Scaling laws for reward model overoptimization, arXiv:2210.10760:

    best of n:               R(d) = d (α - β d)            peak at d* = α / (2β),        R* = α² / (4β)
    reinforcement learning:  R(d) = d (α - β log d)        peak at d* = exp(α/β - 1),    R* = β d*

R is the gold reward minus that of the initial policy, so that R(0) = 0. The second has an infinite slope at 0 and is
not valid near it. Both are linear in (α, β): least squares, no intercept. The paper prints no numbers of its fits.
Legend: Q = points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nashtune.errors import InputError
from nashtune.games.matrices import Array

Law = Literal["best_of_n", "rl"]


def gold_of(law: Law, d: Array, alpha: float, beta: float, *, refreshes: float = 1.0) -> Array:
    """R(d) (Q,).

    Args:
        law: Which of the two.
        d: sqrt(KL), >= 0; > 0 for `rl`.
        alpha: Slope of the gain, in reward per sqrt nat.
        beta: Strength of overoptimisation.
        refreshes: k of iterated RLHF: the reward model is trained anew k times, at equal distances, which gains
            β d log k; `rl` only.
    """
    first, second = _columns(law, d)
    value: Array = alpha * first + beta * (second + (d * math.log(refreshes) if law == "rl" else 0.0))
    return value


def peak_of(law: Law, alpha: float, beta: float) -> tuple[float, float]:
    """(d*, R*) where gold is highest; both infinite for β <= 0, where gold never falls."""
    if beta <= 0:
        return math.inf, math.inf
    if law == "best_of_n":
        return alpha / (2.0 * beta), 0.25 * alpha * (alpha / beta)
    d = math.exp(min(alpha / beta - 1.0, 700.0))
    return d, beta * d


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law.

    Args:
        law: Which.
        alpha: Its α.
        beta: Its β.
        alpha_error: Standard error of α.
        beta_error: Standard error of β.
        r2: 1 - residual over total sum of squares around the mean, weighted as the fit; 1 is perfect.
        rmse: Root of the mean squared residual.
        largest: Largest d of the data.
    """

    law: Law
    alpha: float
    beta: float
    alpha_error: float
    beta_error: float
    r2: float
    rmse: float
    largest: float

    @property
    def peak(self) -> tuple[float, float]:
        """(d*, R*), infinite where gold never falls."""
        return peak_of(self.law, self.alpha, self.beta)

    @property
    def peak_seen(self) -> bool:
        """Whether the peak lies inside the data, so that it is no extrapolation."""
        return 0.0 < self.peak[0] <= self.largest

    def __call__(self, d: Array) -> Array:
        """R(d) of the fit, also beyond its data (Q,)."""
        return gold_of(self.law, d, self.alpha, self.beta)


def fit(law: Law, d: Array, gold: Array, error: Array | None = None) -> Fit:
    """Least squares on points.

    Args:
        law: Which.
        d: sqrt(KL) of each point (Q,); 0 says nothing and is left out. For `rl` leave out points below about 0.3 too
            (our choice: the form is not valid near 0).
        gold: Gold reward minus the initial policy's (Q,).
        error: Standard error of each point; weights are 1/error², and the errors of α and β are theirs. Without it
            points weigh alike and the residuals say how large the errors are.

    Raises:
        InputError: fewer than three points, or points that do not determine both coefficients.
    """
    kept = d > 0
    d, gold = d[kept], gold[kept]
    scale = float(np.abs(gold).max(initial=0.0)) or 1.0  # squares of rewards must not overflow
    gold = gold / scale
    weight = np.ones_like(d) if error is None else 1.0 / (error[kept] / scale) ** 2
    columns = np.stack(_columns(law, d), axis=-1)
    if len(d) < 3 or np.linalg.matrix_rank(columns) < 2:
        raise InputError(f"fit of {law}: {len(d)} points with d > 0 do not determine α and β and their errors; give 3")
    root = np.sqrt(weight)
    (alpha, beta), *_ = np.linalg.lstsq(columns * root[:, None], gold * root, rcond=None)
    residual = gold - columns @ np.array([alpha, beta])
    squares = float(weight @ residual**2)
    covariance = np.linalg.inv(columns.T @ (weight[:, None] * columns))
    if error is None:
        covariance = covariance * squares / (len(d) - 2)
    total = float(weight @ (gold - np.average(gold, weights=weight)) ** 2)
    alpha_error, beta_error = np.sqrt(np.diag(covariance)).tolist()
    return Fit(
        law=law,
        alpha=float(alpha) * scale,
        beta=float(beta) * scale,
        alpha_error=alpha_error * scale,
        beta_error=beta_error * scale,
        r2=1.0 - squares / total if total > 0 else 1.0,
        rmse=float(np.sqrt((residual**2).mean())) * scale,
        largest=float(d.max()),
    )


def _columns(law: Law, d: Array) -> tuple[Array, Array]:
    return (d, -d * d) if law == "best_of_n" else (d, -d * np.log(d))
