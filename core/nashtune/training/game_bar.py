"""What both bars of games share: the phase in progress, and the trainer's steps in it.

The phases of a game run inside Lightning's training loop, between two batches, so one callback shows phases and
optimiser steps: two live displays at once would overwrite each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from time import monotonic
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

MANY_ROUNDS = 20
"""With more rounds than this, what came of a phase is not kept on the screen: it would be thousands of lines."""


@dataclass
class Running:
    """The phase in progress.

    Args:
        name: As `Progress.phase` has it.
        total: Likewise.
        unit: Likewise.
        steps: Optimiser steps of the trainer when it began.
        began: Clock at its beginning, in seconds.
        completed: How much is done.
        stepped: Whether any of that was an optimiser step.
        metrics: Of the newest optimiser step, "loss 0.69315  accuracy 0.5"; empty before the phase's first one.
    """

    name: str
    total: int | None
    unit: str
    steps: int
    began: float
    completed: int = 0
    stepped: bool = False
    metrics: str = ""

    @property
    def whole(self) -> bool:
        """Whether all of it is done."""
        return self.total is not None and self.completed >= self.total

    @property
    def count(self) -> str:
        """`48/192 completions`, or nothing where there is nothing to count."""
        of = "" if self.total is None else f"/{self.total}"
        return f"{self.completed}{of} {self.unit}".rstrip() if of or self.completed else ""

    @property
    def note(self) -> str:
        """What can be said at the end of a phase that says nothing itself."""
        count = f"{self.completed} {self.unit}".rstrip() + ", " if self.completed else ""
        return f"{count}{self.seconds:.1f} s"

    @property
    def seconds(self) -> float:
        """Since it began."""
        return monotonic() - self.began


class GameBar(ProgressBar, ABC):
    """A `Progress` that counts the trainer's optimiser steps itself; only rank 0 shows anything."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._round = (0, 0)
        self._running: Running | None = None

    def enable(self) -> None:
        """Show."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing: Lightning asks for it on every rank but 0."""
        self._enabled = False

    def round(self, number: int, total: int) -> None:
        """See `Progress`."""
        self._finish(None)
        self._round = (number, total)

    def phase(self, name: str, total: int | None = None, unit: str = "") -> None:
        """See `Progress`."""
        self._finish(None)
        steps = self._trainer.global_step if self._trainer else 0
        self._running = Running(name, total, unit, steps=steps, began=monotonic())
        if self._enabled:
            self._begin(self._running)

    def advance(self, by: int = 1) -> None:
        """See `Progress`."""
        if self._running is not None:
            self._running.completed += by
            if self._enabled:
                self._move(self._running)

    def done(self, note: str) -> None:
        """See `Progress`."""
        self._finish(note)

    def close(self) -> None:
        """See `Progress`; a phase that is not complete ends without a word."""
        self._see_steps(metrics=True)
        if self._running is not None and not self._running.whole:
            self._running = None
        self._finish(None)
        self._stop()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Show the metrics of the step before: the module logs them after callbacks have seen its end."""
        self._see_steps(metrics=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step."""
        self._see_steps(metrics=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._running = None
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The trainer is done; phases after it may begin again."""
        self.close()

    def _see_steps(self, *, metrics: bool) -> None:
        """Count optimiser steps since the phase began; only an update makes any."""
        running = self._running
        if running is None or self._trainer is None:
            return
        new = self._trainer.global_step - running.steps
        running.steps += new
        running.stepped = running.stepped or new > 0
        if metrics and running.stepped:
            shown = self._trainer.progress_bar_metrics.items()
            running.metrics = "  ".join(f"{name.removeprefix('train/')} {float(value):.5g}" for name, value in shown)
        if new or (metrics and running.stepped):
            self.advance(new)

    def _finish(self, note: str | None) -> None:
        self._see_steps(metrics=True)
        running, self._running = self._running, None
        if running is not None and self._enabled:
            said = f"{self.place}{running.name}: {running.note if note is None else note}"
            self._end("  ".join(part for part in (said, running.metrics) if part))

    @property
    def place(self) -> str:
        """`round 2/3`, with a space behind; nothing outside of rounds."""
        number, total = self._round
        return f"round {number}/{total}  " if number else ""

    @property
    def many(self) -> bool:
        """Whether a line for each phase would be too many lines."""
        number, total = self._round
        return number > 0 and total > MANY_ROUNDS

    @abstractmethod
    def _begin(self, running: Running) -> None: ...

    @abstractmethod
    def _move(self, running: Running) -> None: ...

    @abstractmethod
    def _end(self, line: str) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...
