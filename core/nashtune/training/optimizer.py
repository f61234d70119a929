"""Optimiser and learning-rate schedule, from the spec's `optimizer` section."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from torch.nn import Parameter

from nashtune.errors import InputError
from nashtune.spec.model import OptimizerSpec
from nashtune.training.stochastic import StochasticAdamW

if TYPE_CHECKING:
    from nashtune.data.module import PreferenceData


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


class LearningRate:
    """The learning-rate schedule of the update in progress: a game begins a new one with each update.

    Args:
        spec: Optimiser settings.
        total: Optimiser steps of the update that comes first.

    Attributes:
        start: Optimiser steps of the run that were done when the update began.
        total: Optimiser steps of the update.
    """

    def __init__(self, spec: OptimizerSpec, total: int) -> None:
        self._spec = spec
        self.start = 0
        self.total = total

    def factor(self, step: int) -> float:
        """What the peak learning rate is multiplied by after `step` optimiser steps of the run."""
        warmup = self._spec.warmup_steps(self.total)
        return learning_rate_factor(step - self.start, total=self.total, warmup_steps=warmup, decay=self._spec.decay)

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """A new update: the optimiser forgets its moments, and warm-up and decay begin anew."""
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.factor(self.start)


def configure(spec: OptimizerSpec, parameters: Iterable[Parameter], rate: LearningRate) -> dict[str, Any]:
    """What `configure_optimizers` returns: the optimiser over trainable parameters and a per-step schedule."""
    optimizer = make_optimizer(spec, [p for p in parameters if p.requires_grad])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate.factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def total_steps(trainer: Trainer, data: PreferenceData) -> int:
    """Optimiser steps of an offline run, from its rows and the trainer's limits.

    Not `trainer.estimated_stepping_batches`: reading it before the fit makes Lightning drop the loader's state on
    resume.

    Raises:
        InputError: the run has no end.
    """
    limits = [int(trainer.max_steps)] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        per_epoch = data.steps_per_epoch(trainer.accumulate_grad_batches, trainer.world_size)
        limits.append(int(trainer.max_epochs) * per_epoch)
    if not limits:
        raise InputError("trainer.max_epochs: the run has no end; set trainer.max_epochs or trainer.max_steps")
    return min(limits)


def make_optimizer(spec: OptimizerSpec, trained: list[Parameter]) -> torch.optim.Optimizer:
    """The optimiser that a spec names.

    Args:
        spec: Its settings.
        trained: Parameters.
    """
    if spec.name == "rmsprop":
        return torch.optim.RMSprop(trained, lr=spec.lr, weight_decay=spec.weight_decay)
    betas = (float(spec.betas[0]), float(spec.betas[1]))
    if spec.name == "adamw_8bit":
        eight_bit: torch.optim.Optimizer = _bitsandbytes().AdamW8bit(
            trained, lr=spec.lr, betas=betas, weight_decay=spec.weight_decay
        )
        return eight_bit
    if spec.rounding == "stochastic":
        return StochasticAdamW(trained, lr=spec.lr, betas=betas, weight_decay=spec.weight_decay)
    # one kernel over all weights: no temporaries of their size, and nothing is asked of the device
    fused = torch.optim.AdamW(trained, lr=spec.lr, betas=betas, weight_decay=spec.weight_decay, fused=True)
    # Lightning refuses to clip gradients for an optimiser that could unscale them itself, in bf16 as well, where
    # nothing is scaled; without this mark torch's GradScaler unscales fp16 gradients before the clipping
    fused._step_supports_amp_scaling = False
    return fused


def _bitsandbytes() -> Any:
    """The optimisers of bitsandbytes, which warns at import of 4-bit kernels that nothing here uses."""
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.addFilter(lambda record: "gemm_4bit" not in str(record.msg))
    return importlib.import_module("bitsandbytes.optim")
