"""Tokens, time and peak memory of one attempt of a run; `attempts` has them of all."""

from __future__ import annotations

import resource
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nashtune.interfaces import TokenBatch
from nashtune.ranks import everyone

if TYPE_CHECKING:
    from nashtune.training.module import AlignmentModule


def peak_memory_gib() -> float:
    """Peak memory of this process: allocated on the GPU when there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS reports bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class Throughput(Callback):
    """Counts tokens while training; validation and saving are not in the time.

    What a rank computes only to keep the others company counts nothing. Each rank counts for itself until `gather`.

    Attributes:
        real_tokens: Tokens of all sequences, a prompt as often as it stands in them, without padding.
        positions: Positions that the backbone ran on.
        padding: Those of them that are padding.
        seconds: Wall-clock seconds inside training batches.
    """

    def __init__(self) -> None:
        self.real_tokens = 0
        self.positions = 0
        self.padding = 0
        self.seconds = 0.0
        self._start = 0.0
        self._peak = 0.0  # GiB, of the rank with the most

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[TokenBatch], batch_idx: int
    ) -> None:
        """Stop the clock and count; on an accelerator the clock shows when work was handed out, in sum the same."""
        self.seconds += time.perf_counter() - self._start
        for one in batch[: cast("AlignmentModule", pl_module).counted_passes]:
            at = one.layout
            assert at is not None, "the module counts before it trains"
            self.real_tokens += at.tokens
            self.positions += at.positions
            self.padding += at.positions - at.tokens if at.packed is None else 0

    def gather(self) -> None:
        """Take what all ranks have counted, and the time and memory of those that needed the most; collective."""
        own = (self.real_tokens, self.positions, self.padding, self.seconds, peak_memory_gib())
        real, positions, padding, seconds, peaks = zip(*everyone(own), strict=True)
        self.real_tokens, self.positions, self.padding = sum(real), sum(positions), sum(padding)
        self.seconds, self._peak = max(seconds), max(peaks)

    @property
    def peak(self) -> float:
        """Most memory of a rank, in GiB; of several ranks, after `gather`."""
        return max(self._peak, peak_memory_gib())
