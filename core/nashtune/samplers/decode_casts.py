"""Weights under autocast, cast once for all tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def kept_casts(models: Sequence[nn.Module]) -> Iterator[None]:
    """Has autocast keep what it casts frozen float32 weights to, until its own context ends.

    It does so by itself for weights that are trained, and goes by `requires_grad` alone; a frozen model, or the base
    of a LoRA adapter, would be cast anew for every token, which takes as long as the rest of the pass. What is kept
    takes half the memory of the weights.

    Args:
        models: That are called within, without gradient.
    """
    frozen = [
        weight
        for model in models
        for weight in model.parameters()
        if not weight.requires_grad and weight.dtype == torch.float32 and torch.is_autocast_enabled(weight.device.type)
    ]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
