"""Optimiser and learning-rate schedule, from the spec's `optimizer` section."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter

from nashtune.spec.model import OptimizerSpec


def learning_rate_factor(step: int, *, total: int, warmup_steps: int, decay: str) -> float:
    """What the peak learning rate is multiplied by at an optimiser step.

    Args:
        step: Optimiser steps done, from 0.
        total: Optimiser steps of the run.
        warmup_steps: Steps of the linear warm-up.
        decay: "constant", "linear" (to 0 at `total`) or "cosine" (to 0 at `total`).
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total - warmup_steps))
    if decay == "linear":
        return 1.0 - progress
    if decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


def configure(spec: OptimizerSpec, parameters: Iterable[Parameter], total_steps: int) -> dict[str, Any]:
    """What `configure_optimizers` returns: the optimiser over trainable parameters and a per-step schedule."""
    trained = [p for p in parameters if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if spec.name == "rmsprop":
        optimizer = torch.optim.RMSprop(trained, lr=spec.lr, weight_decay=spec.weight_decay)
    else:
        betas = (float(spec.betas[0]), float(spec.betas[1]))
        optimizer = torch.optim.AdamW(trained, lr=spec.lr, betas=betas, weight_decay=spec.weight_decay)
    warmup = spec.warmup_steps(total_steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, total=total_steps, warmup_steps=warmup, decay=spec.decay)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
