"""How likely a policy that was tuned on noisy rewards is worse than its reference.

The noise model: an estimate R = r* + σ ε of the true rewards r*, ε independent standard normal for each arm. The gain
of a policy π is E_π[r*] - E_π₀[r*], its risk the probability over ε that the gain is below 0.
Legend: X = prompts, D = draws of the noise, n = arms of a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nashtune.games.matrices import Array

ROUNDING = 1e-12
"""A loss below this share of the largest reward is none: a policy that stays at its reference has risk 0."""


@dataclass(frozen=True, kw_only=True)
class Risk:
    """Distribution of the gain over draws of the noise.

    Args:
        value: Share of draws with a gain below 0.
        standard_error: sqrt(p (1 - p) / D) of it; 0 where nothing is random.
        mean_gain: Mean gain.
        mean_gain_error: Standard error of the mean.
        quantile_5: 5 % quantile of the gain.
        draws: D; 1 where nothing is random.
    """

    value: float
    standard_error: float
    mean_gain: float
    mean_gain_error: float
    quantile_5: float
    draws: int

    @property
    def method(self) -> Literal["exact", "monte_carlo"]:
        """How it is known: exactly where no arm's reward is noisy."""
        return "exact" if self.draws == 1 else "monte_carlo"


def from_gains(gain_D: Array, scale: float) -> Risk:
    """Risk of the gains of D draws.

    Args:
        gain_D: Gains (D,).
        scale: Largest absolute true reward, against which rounding is measured.
    """
    draws = len(gain_D)
    value = float((gain_D < -ROUNDING * scale).mean())
    return Risk(
        value=value,
        standard_error=math.sqrt(value * (1.0 - value) / draws),
        mean_gain=float(gain_D.mean()),
        mean_gain_error=float(gain_D.std() / math.sqrt(draws)),
        quantile_5=float(np.quantile(gain_D, 0.05)),
        draws=draws,
    )


def sphere_risk(gold: Sequence[Array], variance: Sequence[Array]) -> float:
    """Exact risk of the step along R - mean(R), at any radius: Φ(-g.g / sqrt(g'Σg)) with g = r* - mean(r*).

    Args:
        gold: r* of each prompt, (n,) each; prompts may have different numbers of arms and count alike.
        variance: σ² of each arm, likewise.
    """
    centred = [r - r.mean() for r in gold]
    size = sum(float(g @ g) for g in centred)
    spread = sum(float(g @ (v * g)) for g, v in zip(centred, variance, strict=True))
    return _below_zero(size, math.sqrt(spread))


def ellipsoid_risk(gold: Sequence[Array], variance: Sequence[Array]) -> float:
    """Exact risk of the step along w (R - λ), w = 1/σ²: Φ(-sqrt(Σ w h²)), h = r* minus its w-weighted mean.

    Never above `sphere_risk`, and equal to it where all variances are: the theorem that motivates variance-aware
    regularisation (derived; see `nashtune.bandits.closed_forms`).

    Args:
        gold: r* of each prompt, (n,) each.
        variance: σ² of each arm, > 0, likewise.
    """
    total = 0.0
    for r, v in zip(gold, variance, strict=True):
        w = 1.0 / v
        h = r - (w @ r) / w.sum()
        total += float((w * h) @ h)
    return _below_zero(total, math.sqrt(total))


def _below_zero(mean: float, deviation: float) -> float:
    """P(N(mean, deviation²) < 0) for a mean >= 0."""
    if deviation == 0.0:  # nothing to win, or nothing uncertain
        return 0.0
    return 0.5 * math.erfc(mean / deviation / math.sqrt(2.0))
