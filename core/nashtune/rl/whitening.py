"""Whitening: numbers of all tokens of an update are divided by their standard deviation, once, before its first step.

Legend: M = tokens of all completions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Whitening = Literal["none", "population", "bessel"]
EPSILON = 1e-8
"""Added to the variance (all published codes)."""


def whiten(values_M: Tensor, how: Whitening, *, keep_mean: bool = False) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-8), over all tokens (M,).

    Args:
        values_M: One per token; no padding.
        how: `population` divides the squares by M, `bessel` by M - 1; `none` changes nothing.
        keep_mean: Add the mean again, as for rewards.

    Raises:
        ValueError: `bessel` and fewer than two numbers.
    """
    if how == "none":
        return values_M
    if how == "bessel" and len(values_M) < 2:
        raise ValueError("whitening with M - 1 needs at least two tokens in an update; draw more, or use population")
    wide_M = values_M.double()
    mean = wide_M.mean()
    variance = wide_M.var(correction=int(how == "bessel"))
    white_M = (wide_M - mean) / (variance + EPSILON).sqrt()
    return (white_M + mean if keep_mean else white_M).to(values_M.dtype)
