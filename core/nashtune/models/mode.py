"""Running a module as a frozen function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def frozen_mode(model: nn.Module) -> Iterator[None]:
    """No gradient and evaluation mode (no dropout, no checkpointing); each module's own mode is restored after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        # module by module: train() on the root would also switch on what was in evaluation mode before
        for module in training:
            module.training = True
