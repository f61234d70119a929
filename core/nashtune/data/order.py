"""Which rows a micro-batch holds: a pure function of (seed, epoch, batch index), so that a run resumes anywhere.

Ranks share a *global block* of `batch_size * world_size` rows at every micro-batch step. A block's rows are the same
however many ranks there are, as long as the product stays the same. No row is repeated and none is left out, so the
mean over an epoch is the mean over the data. The last block may be smaller: it is split as evenly as possible. When it
has too few rows for every rank, some ranks get an empty micro-batch (they borrow a row, which counts nothing); where
that is not possible the block joins the one before it, the one place where the number of ranks changes a block's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nashtune.errors import InputError


@lru_cache(maxsize=2)
def permutation(size: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Order of `size` rows in an epoch, read-only. NumPy's generators give the same order on every platform."""
    order = np.random.default_rng([seed, epoch]).permutation(size).astype(np.int32)
    order.flags.writeable = False
    return order


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """The micro-batches of an epoch, for one rank.

    Args:
        size: Rows of the data set.
        batch_size: Rows of a micro-batch on one rank.
        seed: Of the permutations, >= 0.
        shuffle: A new permutation each epoch; else the rows' own order.
        rank: This process among the data-parallel ones.
        world_size: Number of them.
        least: Fewest rows a rank must get: 2 where examples are compared within a micro-batch.
        borrows: Whether a rank may get none: see `borrowed`. Only where such a row can count nothing, and `least` is 1.

    Raises:
        InputError: fewer rows than the ranks need.
    """

    size: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    rank: int = 0
    world_size: int = 1
    least: int = 1
    borrows: bool = False

    def __post_init__(self) -> None:
        needed = self.least * self.world_size
        if self.size < needed:
            raise InputError(
                f"data: {self.size} rows are too few for {self.world_size} ranks with at least {self.least} each; "
                f"give {needed} rows or more, or use fewer devices"
            )

    @property
    def _block(self) -> int:
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Micro-batches of an epoch; the same on every rank."""
        blocks = -(-self.size // self._block)
        rest = self.size - (blocks - 1) * self._block
        joins = blocks > 1 and not self.borrows and rest < self.least * self.world_size
        return blocks - 1 if joins else blocks

    def start(self, index: int) -> int:
        """Rows on all ranks of an epoch before micro-batch `index`; of the one after the last, all rows."""
        return index * self._block if index < len(self) else self.size

    def batch(self, epoch: int, index: int) -> tuple[int, ...]:
        """Rows of this rank's micro-batch `index` of an epoch; none where this rank borrows one."""
        return self._between(epoch, *self._share(index))

    def is_empty(self, index: int) -> bool:
        """Whether this rank has no row in micro-batch `index`, in any epoch."""
        first, last = self._share(index)
        return first == last

    def borrowed(self, epoch: int, index: int) -> tuple[int, ...]:
        """The row that a rank computes with weight 0 where its micro-batch is empty: ranks must do alike."""
        start = self.start(index)
        return self._between(epoch, start, start + 1)

    def _share(self, index: int) -> tuple[int, int]:
        start, stop = self.start(index), self.start(index + 1)
        each, larger = divmod(stop - start, self.world_size)
        first = start + self.rank * each + min(self.rank, larger)
        return first, first + each + (self.rank < larger)

    def _between(self, epoch: int, first: int, last: int) -> tuple[int, ...]:
        if not self.shuffle:
            return tuple(range(first, last))
        return tuple(permutation(self.size, self.seed, epoch)[first:last].tolist())

    def rows_between(self, first: int, last: int) -> int:
        """Rows on all ranks of the micro-batches first, ..., last - 1."""
        return self.start(last) - self.start(first)

    def index_at(self, sample: int) -> int:
        """The micro-batch that begins after `sample` rows of the epoch on all ranks.

        Raises:
            InputError: no micro-batch begins there.
        """
        index = len(self) if sample == self.size else sample // self._block
        if index < 0 or self.start(index) != sample:
            raise InputError(
                f"--ckpt_path: the checkpoint says that {sample} of {self.size} rows of the epoch were trained on, and "
                f"no micro-batch of {self._block} begins there: it was altered, restore it from a copy"
            )
        return index
