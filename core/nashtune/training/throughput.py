"""Real and padded tokens per second, padding share and peak memory of a run."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nashtune.interfaces import TokenBatch


def peak_memory_gib() -> float:
    """Peak memory of this process: allocated on the GPU when there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS reports bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class Throughput(Callback):
    """Counts tokens while training; validation and saving are not in the time.

    Attributes:
        real_tokens: Tokens that are not padding, as the batches came.
        positions: Tokens and padding.
        seconds: Wall-clock seconds inside training batches.
    """

    def __init__(self) -> None:
        self.real_tokens = 0
        self.positions = 0
        self.seconds = 0.0
        self._start = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        """Stop the clock and count."""
        self.seconds += time.perf_counter() - self._start
        self.real_tokens += int(batch.attention_mask.sum())
        self.positions += batch.attention_mask.numel()

    def summary(self) -> dict[str, float]:
        """Figures of this attempt."""
        seconds = max(self.seconds, 1e-9)
        return {
            "tokens_per_second": self.real_tokens / seconds,
            "padded_tokens_per_second": self.positions / seconds,
            "padding_share": 1.0 - self.real_tokens / max(1, self.positions),
            "training_seconds": self.seconds,
            "peak_memory_gib": peak_memory_gib(),
        }
