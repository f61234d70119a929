"""Which rows of an update a micro-batch holds: a pure function of (seed, epoch, micro-batch).

An update of a game ends in the middle of what Lightning takes for one long epoch, so its last optimiser step must be
complete: every window of `batch_size * accumulate` rows has exactly `accumulate` micro-batches, the last one too, with
sizes as equal as they can be. Where a window has fewer rows than micro-batches some are empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nashtune.data.order import permutation


@dataclass(frozen=True, kw_only=True)
class WindowOrder:
    """The micro-batches of one update.

    Args:
        size: Rows, >= 0.
        batch_size: Rows of a micro-batch.
        accumulate: Micro-batches of an optimiser step.
        epochs: Passes over the rows.
        seed: Of the order.
    """

    size: int
    batch_size: int
    accumulate: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass."""
        return math.ceil(self.size / (self.batch_size * self.accumulate))

    @property
    def steps(self) -> int:
        """Optimiser steps of the update."""
        return self.epochs * self.steps_per_epoch

    def __len__(self) -> int:
        """Micro-batches of the update."""
        return self.steps * self.accumulate

    def rows(self, index: int) -> tuple[int, ...]:
        """Rows of micro-batch `index` of the update; none where its window has too few."""
        epoch, first, last = self._window(index)
        each, larger = divmod(last - first, self.accumulate)
        place = index % self.accumulate
        start = first + place * each + min(place, larger)
        return tuple(permutation(self.size, self.seed, epoch)[start : start + each + (place < larger)].tolist())

    def window_size(self, index: int) -> int:
        """Rows of the optimiser step that a micro-batch belongs to."""
        _, first, last = self._window(index)
        return last - first

    def _window(self, index: int) -> tuple[int, int, int]:
        """Epoch, first row and end of the window, in the epoch's order."""
        epoch, step = divmod(index // self.accumulate, self.steps_per_epoch)
        block = self.batch_size * self.accumulate
        return epoch, step * block, min(self.size, (step + 1) * block)
