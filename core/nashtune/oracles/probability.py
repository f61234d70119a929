"""Preference probabilities that are exactly antisymmetric: 1 - P(y > y') is P(y' > y), bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

GRID = 2.0**52  # below 1/2 floats are finer than above; on the coarser grid both 1/2 + d and 1/2 - d are exact


def around_half(excess_N: Tensor) -> Tensor:
    """1/2 + excess, float64 (N,); the negated excess gives exactly one minus it. NaN stays NaN.

    Args:
        excess_N: P - 1/2, in [-1/2, 1/2] (N,).
    """
    return 0.5 + torch.round(excess_N.double() * GRID) / GRID


def both_orders(forward_N: Tensor, backward_N: Tensor) -> Tensor:
    """(P_1(y, y') + 1 - P_2(y', y)) / 2 (N,), free of what the position alone adds.

    Args:
        forward_N: Probability that the answer read first wins, with y read first (N,).
        backward_N: The same with y' read first (N,).
    """
    return around_half((forward_N.double() - backward_N.double()) / 2)


def bradley_terry(first_N: Tensor, second_N: Tensor) -> Tensor:
    """sigmoid(r - r') of rewards, float64 (N,)."""
    gap = first_N.double() - second_N.double()
    return around_half(torch.tanh(gap / 2) / 2)  # an odd function, so the two orders mirror each other exactly
