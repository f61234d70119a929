"""The training loader of a game: between the micro-batches of two updates, the phases that lie there.

Lightning sees one long epoch. Its length is known before the start as the most it can be; pairs that a round drops make
it end earlier. It has a length, so Lightning asks for a batch only when the one before is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from nashtune.interfaces import TokenBatch
from nashtune.rounds.identity import refuse_other
from nashtune.rounds.order import WindowOrder
from nashtune.rounds.rows import RolloutRow, collate, where
from nashtune.rounds.runner import Work


class Begin(Protocol):
    """Called when an update begins, or goes on after a resume."""

    def __call__(self, work: Work, order: WindowOrder, *, fresh: bool, started: int | None) -> int:
        """Set weights, optimiser and learning rate (only if `fresh`).

        Returns:
            Optimiser steps of the run that were done when the update began (`started` after a resume).
        """


class GameLoader:
    """Micro-batches of every update, in order, from wherever the run is.

    Args:
        works: Gives the updates from a number on, of whose first so many optimiser steps are done; phases run while it
            is advanced.
        order: The micro-batches of an update with so many rows.
        length: Micro-batches of the whole run, at most.
        begin: Called before the first micro-batch of an update.
        processed: The trainer's number of processed micro-batches since the run began.
        identity: What the run's data are; a state is only valid for the same.
    """

    def __init__(
        self,
        works: Callable[[int, int], Iterator[Work]],
        order: Callable[[int], WindowOrder],
        *,
        length: int,
        begin: Begin,
        processed: Callable[[], int],
        identity: Mapping[str, Any],
    ) -> None:
        self.restored = False  # whether the run goes on from a checkpoint
        self._works = works
        self._order = order
        self._length = length
        self._begin = begin
        self._processed = processed
        self._identity = dict(identity)
        self._done = 0  # updates that are over where the next pass begins
        self._step = 0  # and the optimiser step of the next one
        self._first = 0  # micro-batch that the pass in progress began its update with
        self._started: int | None = None
        self._work: Work | None = None
        self._now = WindowOrder(size=0, batch_size=1, accumulate=1, epochs=1, seed=0)
        self._before = 0

    def __len__(self) -> int:
        """Micro-batches of the whole run, at most."""
        return self._length

    def __iter__(self) -> Iterator[TokenBatch]:
        """The rest of the run. A generator, so that nothing happens before the first batch is asked for."""
        step = self._step
        for work in self._works(self._done, step):
            order = self._order(len(work.rows))
            first = step * order.accumulate
            started = self._begin(work, order, fresh=first == 0, started=self._started)
            self._work, self._now, self._first, self._started = work, order, first, started
            self._before = self._processed()
            for index in range(first, len(order)):
                # an empty micro-batch of an incomplete window borrows a row, and `window_size` gives it no weight
                yield collate(work.rows, order.rows(index) or order.window(index)[:1])
            step, self._started = 0, None

    def index(self) -> int:
        """Micro-batches of the update in progress that were processed."""
        return self._first + self._processed() - self._before

    def window_size(self) -> float:
        """Rows, on all ranks, of the optimiser step of the micro-batch in training; infinite for an empty one."""
        index = self.index()
        return float(len(self._now.window(index))) if self._now.rows(index) else float("inf")

    def window_tokens(self) -> int:
        """Completion tokens, on all ranks, of the optimiser step that the micro-batch in training belongs to."""
        assert self._work is not None
        rows = [self._work.rows[i] for i in self._now.window(self.index())]
        return sum(len(row.token_ids) for row in rows if isinstance(row, RolloutRow))

    def ends(self) -> tuple[bool, bool]:
        """Whether the optimiser step in training is the first and whether it is the last of its update."""
        step = self.index() // self._now.accumulate
        return step == 0, step == self._now.steps - 1

    def at_end(self) -> bool:
        """Whether every micro-batch of the update in progress was processed."""
        return self._work is not None and self.index() >= len(self._now)

    def number(self) -> int:
        """Of the update in progress, over the whole run."""
        return self._work.number if self._work is not None else self._done

    def where(self, row: int) -> str:
        """Place of a row of the update in progress."""
        assert self._work is not None
        return where(self._work.rows[row])

    def state_dict(self) -> dict[str, Any]:
        """Updates that are over, optimiser steps of the next one, and what these belong to: plain values.

        Steps, because the rows of a step are the same on any number of ranks; of one that is not complete, the
        gradients are in no checkpoint.
        """
        if self._work is None:
            state: dict[str, Any] = {"update": self._done, "step": self._step, "started": self._started}
        elif self.at_end():
            state = {"update": self._work.number + 1, "step": 0, "started": None}
        else:
            step = self.index() // self._now.accumulate
            state = {"update": self._work.number, "step": step, "started": self._started}
        return {**state, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state says.

        Raises:
            InputError: the state belongs to other prompts, another seed or other batch sizes.
        """
        refuse_other(state, self._identity)
        self._done, self._step = int(state["update"]), int(state["step"])
        self._started = None if state["started"] is None else int(state["started"])
        self._work = None
        self.restored = True
