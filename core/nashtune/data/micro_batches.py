"""The micro-batches that this rank takes of a run's rows, as its trainer counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nashtune.data.loader import Collate, RowLoader, TrainLoader
from nashtune.data.order import BatchOrder

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from nashtune.data.row_file import TokenRows


@dataclass(frozen=True, kw_only=True)
class MicroBatches:
    """Divides rows into micro-batches.

    Args:
        collate: Makes a batch of (index, row).
        least: Fewest rows of a micro-batch on a rank: 2 where examples are compared within it.
        batch_size: Rows of a training micro-batch on one rank.
        eval_batch_size: The same of held-out rows.
        seed: Of the order of training rows, >= 0.
        compares_rows: Whether the loss or the KL controller compares the rows of a micro-batch.
    """

    collate: Collate
    least: int
    batch_size: int
    eval_batch_size: int
    seed: int
    compares_rows: bool

    def train(self, rows: TokenRows, trainer: Trainer, fingerprint: str) -> TrainLoader:
        """Shuffled micro-batches of this rank, resumable in the middle of an epoch.

        Args:
            rows: The training rows.
            trainer: Counts what was processed.
            fingerprint: Of the rows.
        """
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        order = self._of_training(rows, trainer, trainer.world_size)
        return TrainLoader(
            rows,
            order,
            self.collate,
            fingerprint=fingerprint,
            processed=lambda: progress.total.processed,
            per_epoch=_taken(order, trainer),
            accumulate=trainer.accumulate_grad_batches,
            compares_rows=self.compares_rows,
        )

    def held_out(self, rows: TokenRows, trainer: Trainer | None) -> RowLoader:
        """This rank's share of held-out rows, in their own order."""
        order = BatchOrder(
            size=len(rows),
            batch_size=self.eval_batch_size,
            seed=self.seed,
            shuffle=False,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=trainer.world_size if trainer is not None else 1,
            least=self.least,
        )
        return RowLoader(rows, order, self.collate)

    def every(self, rows: TokenRows) -> RowLoader:
        """All rows in order, whatever the rank."""
        return self.held_out(rows, None)

    def steps_per_epoch(self, rows: TokenRows, trainer: Trainer | None, accumulate: int, world_size: int) -> int:
        """Optimiser steps that a trainer takes of an epoch over training rows."""
        return math.ceil(_taken(self._of_training(rows, trainer, world_size), trainer) / accumulate)

    def window_size(self, rows: TokenRows, trainer: Trainer | None, batch_idx: int, accumulate: int) -> float:
        """Rows, on all ranks, of the optimiser step of a training micro-batch; see `PreferenceData.window_size`."""
        order = self._of_training(rows, trainer, trainer.world_size if trainer is not None else 1)
        if order.is_empty(batch_idx):
            return float("inf")
        first = batch_idx - batch_idx % accumulate
        return order.rows_between(first, min(first + accumulate, _taken(order, trainer)))

    def _of_training(self, rows: TokenRows, trainer: Trainer | None, world_size: int) -> BatchOrder:
        overfits: Any = trainer.overfit_batches if trainer is not None else 0  # type: ignore[attr-defined]
        return BatchOrder(
            size=len(rows),
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=not overfits > 0,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=world_size,
            least=self.least,
            borrows=self.least == 1,
        )


def _taken(order: BatchOrder, trainer: Trainer | None) -> int:
    """Micro-batches that the trainer takes from an epoch."""
    limit = trainer.limit_train_batches if trainer is not None else None
    if limit is None:
        return len(order)
    return min(limit, len(order)) if isinstance(limit, int) else int(len(order) * limit)
