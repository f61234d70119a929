"""Progress on a terminal, and in logs and pipes: Lightning's bars for one long fit, bars of our own for games."""

from __future__ import annotations

from time import monotonic
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import BatchesProcessedColumn
from rich import get_console
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Display
from rich.text import Text

from nashtune.training.game_bar import GameBar, Running

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_REFRESHES = 2.0
"""Of a bar in a log: every step is shown where steps are slower than this, and a fast run does not fill the file."""


class _NoVersion:
    """Progress bar without the loggers' version number, which says nothing here."""

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """What the bar shows."""
        shown: dict[str, Any] = super().get_metrics(*args)  # type: ignore[misc]  # mixed into Lightning's bars
        return {name: value for name, value in shown.items() if name != "v_num"}


class PlainBar(_NoVersion, TQDMProgressBar):
    """For logs and pipes: refreshed by the clock, as Lightning's count of batches is too rare for slow ones."""

    BAR_FORMAT = TQDMProgressBar.BAR_FORMAT.replace("{total_fmt}", "{total_fmt} batches")

    def __init__(self) -> None:
        super().__init__(refresh_rate=1, leave=True)
        self._refreshed = float("-inf")

    def _should_update(self, current: int, total: int) -> bool:
        """Whether this batch is shown; the last one always is."""
        now = monotonic()
        due = current == total or now - self._refreshed >= SECONDS_BETWEEN_REFRESHES
        if due:
            self._refreshed = now
        return due and self.is_enabled


class _Batches(BatchesProcessedColumn):
    """Says what is counted: with several processes, those of the first one."""

    def render(self, task: Task) -> Text:
        """`4/8 batches`."""
        return Text(f"{super().render(task)} batches", style=self.style)


class RichBar(_NoVersion, RichProgressBar):
    """For terminals."""

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Lightning's, one of them in words."""
        columns = super().configure_columns(trainer)
        return [_Batches(one.style) if type(one) is BatchesProcessedColumn else one for one in columns]


class RoundsBar(GameBar):
    """For terminals: a bar over rounds, one over the phase in progress, and above them what came of earlier phases.

    Args:
        console: Where to draw; None takes rich's own, on stdout.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console
        self._display: Display | None = None
        self._rounds = self._phase = TaskID(0)

    def _begin(self, running: Running) -> None:
        display, (number, total) = self._shown(), self._round
        place, finished = self.place, max(0, number - 1)
        display.update(self._rounds, description=place, total=total, completed=finished, visible=number > 0)
        self._phase = display.add_task(running.name, total=running.total, count=running.count, metrics="")

    def _move(self, running: Running) -> None:
        self._shown().update(self._phase, completed=running.completed, count=running.count, metrics=running.metrics)

    def _end(self, line: str) -> None:
        self._shown().remove_task(self._phase)
        if not self.many:
            self._shown().console.print(Text(line))

    def _stop(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def _shown(self) -> Display:
        if self._display is None:
            columns = [
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[count]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("{task.fields[metrics]}", markup=False, style="italic"),
            ]
            self._display = Display(
                *columns, console=self._console or get_console(), refresh_per_second=4, transient=True
            )
            self._rounds = self._display.add_task("", visible=False, count="", metrics="")
            self._display.start()
        return self._display


class PlainProgress(GameBar):
    """For logs and pipes: a line at the beginning and end of each phase, and one now and then during a long one."""

    def __init__(self) -> None:
        super().__init__()
        self._said = float("-inf")

    def _begin(self, running: Running) -> None:
        self._say(f"{self.place}{running.name} {running.count}".rstrip() + " ...", always=not self.many)

    def _move(self, running: Running) -> None:
        parts = f"{self.place}{running.name} {running.count}, {running.seconds:.0f} s", running.metrics
        self._say("  ".join(part for part in parts if part), always=False)

    def _end(self, line: str) -> None:
        self._say(line, always=not self.many)

    def _stop(self) -> None:
        pass

    def _say(self, line: str, *, always: bool) -> None:
        now = monotonic()
        if always or now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            print(line, flush=True)
