"""Loaders over rows that are token ids already. Plain iterables on purpose, no `torch.utils.data.DataLoader`.

Lightning re-creates DataLoaders (distributed samplers, `predict`), a DataLoader draws from the global random generator
when its iterator is made, and there is nothing here for worker processes to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nashtune.data.order import BatchOrder
from nashtune.data.tokenise import TokenRow
from nashtune.errors import InputError
from nashtune.interfaces.batch import TokenBatch

Collate = Callable[[Sequence[tuple[int, TokenRow]]], TokenBatch]


class RowLoader:
    """Micro-batches in a fixed order.

    Args:
        rows: The tokenised rows.
        order: Which of them go into which micro-batch.
        collate: Makes a batch of (index, row).
    """

    def __init__(self, rows: Sequence[TokenRow], order: BatchOrder, collate: Collate) -> None:
        self.rows = rows
        self.order = order
        self.collate = collate

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return len(self.order)

    def __iter__(self) -> Iterator[TokenBatch]:
        """The micro-batches of one pass."""
        return (self.load(0, index) for index in range(len(self)))

    def __getitem__(self, index: int) -> TokenBatch:
        """One micro-batch of the first pass."""
        return self.load(0, index)

    def load(self, epoch: int, index: int) -> TokenBatch:
        """One micro-batch."""
        rows = self.order.batch(epoch, index) or self.order.borrowed(epoch, index)
        return self.collate([(row, self.rows[row]) for row in rows])


class TrainLoader(RowLoader):
    """Shuffled micro-batches that can be taken up again in the middle of an epoch.

    Lightning saves `state_dict` in a checkpoint and hands it back before the first batch. The state is counted in rows
    on all ranks, and taken from the trainer's count of *processed* batches: what the iterator has handed out may be
    ahead of what was trained on. Epochs are counted here: Lightning's count is one too many after a resume from a
    checkpoint that was saved at an epoch's end under `max_steps`.

    Another number of ranks, or of micro-batches in a step, goes on at the same row as long as every optimiser step has
    the same rows.

    Args:
        rows: The tokenised rows.
        order: Which of them go into which micro-batch.
        collate: Makes a batch of (index, row).
        fingerprint: Of the data; a state is only valid for the same data.
        processed: The trainer's number of processed batches since the run began, over all epochs.
        per_epoch: Micro-batches that the trainer takes from an epoch (`trainer.limit_train_batches`).
        accumulate: Micro-batches of an optimiser step.
        compares_rows: Whether the loss or the KL controller compares the rows of a micro-batch, so that another
            division of a step into micro-batches would be another objective.
    """

    def __init__(
        self,
        rows: Sequence[TokenRow],
        order: BatchOrder,
        collate: Collate,
        *,
        fingerprint: str,
        processed: Callable[[], int],
        per_epoch: int,
        accumulate: int = 1,
        compares_rows: bool = False,
    ) -> None:
        super().__init__(rows, order, collate)
        self._fingerprint = fingerprint
        self._processed = processed
        self._per_epoch = per_epoch
        self._accumulate = accumulate
        self._compares_rows = compares_rows
        self._start = (0, 0)  # epoch and micro-batch where the next pass begins
        self._pass: tuple[int, int, int] | None = None  # epoch, first micro-batch, the trainer's count at its start

    def __iter__(self) -> Iterator[TokenBatch]:
        """The rest of the epoch after a resume, else the next epoch.

        A generator, so that it begins when the first batch is asked for: Lightning may make an iterator and drop it.
        """
        if self._pass is not None:
            self._start = (self._pass[0] + 1, 0)
        epoch, first = self._start
        self._pass = (epoch, first, self._processed())
        for index in range(first, len(self)):
            yield self.load(epoch, index)

    def position(self) -> tuple[int, int]:
        """Epoch and index of the first micro-batch that was not processed yet."""
        if self._pass is None:
            return self._start
        epoch, first, before = self._pass
        index = first + self._processed() - before
        return (epoch, index) if index < self._per_epoch else (epoch + 1, 0)

    def passed(self, began: bool) -> tuple[int, int]:
        """Micro-batches of the epoch in progress and of the whole run that were processed, as this run counts them.

        Args:
            began: Whether a micro-batch was processed at all: an epoch that has just ended is not over for Lightning.
        """
        epoch, index = self.position()
        ended = began and index == 0
        return self._per_epoch if ended else index, epoch * self._per_epoch + index

    def _identity(self) -> dict[str, Any]:
        order = self.order
        block = order.batch_size * order.world_size
        return {
            "fingerprint": self._fingerprint,
            "rows": order.size,
            "seed": order.seed,
            "shuffle": order.shuffle,
            "step_rows": block * self._accumulate,
            "global_batch_size": block,
            "epoch_rows": order.start(self._per_epoch),
            "epoch_steps": math.ceil(self._per_epoch / self._accumulate),
        }

    def state_dict(self) -> dict[str, Any]:
        """Epoch, rows consumed in it on all ranks, and which data and order these belong to: plain values."""
        epoch, index = self.position()
        return {"epoch": epoch, "samples": self.order.start(index), **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state says.

        Raises:
            InputError: the state belongs to other data, another seed, or steps with other rows.
        """
        now = self._identity()
        whole, rest = divmod(int(state["step_rows"]), int(now["global_batch_size"]))
        advice = f"; --trainer.accumulate_grad_batches {whole} makes it {state['step_rows']}" if not rest else ""
        own = now if self._compares_rows else {**now, "global_batch_size": state["global_batch_size"]}
        check_same_data(state, own, advice)
        self._start = (int(state["epoch"]), self.order.index_at(int(state["samples"])))
        self._pass = None


ADVICE = {
    "rows": "data.train: the checkpoint was made with {saved} rows, these are {now}",
    "fingerprint": "data.train: the checkpoint was made with other training data (other rows, tokenizer, template, "
    "max_length or labels)",
    "seed": "seed_everything: the checkpoint was made with seed {saved}, this run has {now}",
    "shuffle": "trainer.overfit_batches: the checkpoint was made with shuffle {saved}, this run has {now}",
    "step_rows": "trainer.accumulate_grad_batches: the checkpoint was made with {saved} rows per optimiser step "
    "(data.batch_size x trainer.accumulate_grad_batches x devices x nodes), this run has {now}{advice}",
    "global_batch_size": "data.batch_size: the checkpoint was made with {saved} rows per micro-batch on all ranks "
    "(batch_size times devices), this run has {now}, and the method compares the rows of a micro-batch",
    "epoch_rows": "trainer.limit_train_batches: the checkpoint was made with {saved} rows an epoch, this run has {now}",
    "epoch_steps": "trainer.devices: the checkpoint was made with {saved} optimiser steps an epoch, and so many ranks "
    "would take {now}, because the last rows of an epoch are too few for all of them",
}
"""What a loader's state depends on -> what to say where it differs."""


def check_same_data(saved: Mapping[str, Any], now: Mapping[str, Any], advice: str = "") -> None:
    """Refuse to go on with other data or in another order.

    Args:
        saved: What the checkpoint belongs to.
        now: What this run is.
        advice: What to say of other rows in a step, where they can be the same.

    Raises:
        InputError: saying what differs and what to do.
    """
    for name, text in ADVICE.items():
        if saved[name] != now[name]:
            raise InputError(
                f"{text.format(saved=saved[name], now=now[name], advice=advice)}; give what the checkpoint was made "
                "with, or start a new run without --ckpt_path"
            )
