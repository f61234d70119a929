"""Which rows of an update a micro-batch holds: a pure function of (seed, epoch, micro-batch, rank).

An update of a game ends in the middle of what Lightning takes for one long epoch, so its last optimiser step must be
complete: every window of `batch_size * accumulate * world_size` rows has exactly `accumulate` micro-batches on each
rank, the last one too, with sizes as equal as they can be. Where a window has fewer rows than micro-batches some are
empty. A window's rows are the same however it is divided among micro-batches and ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nashtune.data.order import permutation


@dataclass(frozen=True, kw_only=True)
class WindowOrder:
    """The micro-batches of one update, for one rank.

    Args:
        size: Rows, >= 0.
        batch_size: Rows of a micro-batch.
        accumulate: Micro-batches of an optimiser step on one rank.
        epochs: Passes over the rows.
        seed: Of the order.
        rank: This process among the data-parallel ones.
        world_size: Number of them.
    """

    size: int
    batch_size: int
    accumulate: int
    epochs: int
    seed: int
    rank: int = 0
    world_size: int = 1

    @property
    def step_rows(self) -> int:
        """Rows of an optimiser step on all ranks."""
        return self.batch_size * self.accumulate * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass."""
        return math.ceil(self.size / self.step_rows)

    @property
    def steps(self) -> int:
        """Optimiser steps of the update."""
        return self.epochs * self.steps_per_epoch

    def __len__(self) -> int:
        """Micro-batches of the update; the same on every rank."""
        return self.steps * self.accumulate

    def rows(self, index: int) -> tuple[int, ...]:
        """Rows of this rank's micro-batch `index` of the update; none where its window has too few."""
        window = self.window(index)
        each, larger = divmod(len(window), self.accumulate * self.world_size)
        place = index % self.accumulate * self.world_size + self.rank
        start = place * each + min(place, larger)
        return window[start : start + each + (place < larger)]

    def window(self, index: int) -> tuple[int, ...]:
        """Rows, on all ranks, of the optimiser step that a micro-batch belongs to."""
        epoch, step = divmod(index // self.accumulate, self.steps_per_epoch)
        order = permutation(self.size, self.seed, epoch)
        return tuple(order[step * self.step_rows : (step + 1) * self.step_rows].tolist())
