"""The stopwatch as a Lightning callback: `nashtune fit` takes it in its run file, under `trainer.callbacks`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from speed.probe import Probe


class StepProbe(Callback):
    """Times optimiser steps.

    Args:
        gradients: File for the gradients of the first step, as safetensors; None for none.
    """

    def __init__(self, gradients: str | None = None) -> None:
        self._probe = Probe()
        self._gradients = gradients
        self._parts: list[tuple[Any, int]] = []
        self._threads()

    def _threads(self) -> None:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._probe.mark("setup")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._probe.mark("train_start")
        objective: Any = pl_module.objective
        evaluate = objective.evaluate

        def noted(batch: Any, **kwargs: Any) -> Any:
            output = evaluate(batch, **kwargs)
            self._parts.append((output.values.detach().sum(), len(batch)))
            return output

        # a step may take several passes, and what Lightning is given is the last one's share
        objective.evaluate = noted

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._probe.begin_step()
        passes = batch if isinstance(batch, list) else [batch]  # a step may be computed in several
        self._parts.clear()
        self._probe.tokens([one.attention_mask for one in passes])

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if self._gradients is None or trainer.global_step:
            return
        from safetensors.torch import save_file

        model: Any = pl_module.policy
        grads = {name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None}
        save_file(grads, Path(self._gradients))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._probe.end_step()
        self._probe.loss(sum(part for part, _ in self._parts) / sum(rows for _, rows in self._parts))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._probe.write()
