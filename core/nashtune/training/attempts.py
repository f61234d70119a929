"""What every attempt of a run has done: a run that was stopped and went on is reported as one, with nothing left out.

What an attempt had trained when a later one took over is part of the result. What it had trained after that checkpoint
was lost: it counts as time spent, and not as tokens of the result.

RUN_DIR/logs/attempt_N/time.csv   optimiser step, and seconds inside training batches of this attempt until then
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nashtune.notes import note
from nashtune.ranks import everyone
from nashtune.training.shares import SAVED, Share, shares
from nashtune.training.throughput import Throughput, peak_memory_gib

SECONDS_BETWEEN_ROWS = 1.0
"""A killed attempt's clock is known up to its last row."""


class Attempts(Callback):
    """Keeps each attempt's share in the checkpoints, and its clock in the run folder.

    To be called after the `Throughput` that it reads.

    Args:
        throughput: Of this attempt.
        folder: Run folder.
        attempt: Number of this attempt, from 0.
        elsewhere: Whether the checkpoint to go on from lies in another run's folder.
    """

    def __init__(self, throughput: Throughput, folder: Path, attempt: int, *, elsewhere: bool = False) -> None:
        self._throughput = throughput
        self._folder = folder
        self._attempt = attempt
        self._elsewhere = elsewhere
        self._earlier: list[Share] = []
        self._first = self._steps = 0
        self._written = 0.0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Know what earlier attempts have left.

        Raises:
            InputError: it is not what an attempt has saved.
        """
        kept = shares(checkpoint.get(SAVED, []))
        if self._elsewhere:
            kept = [Share(**{**asdict(one), "attempt": None}) for one in kept]
        self._earlier = kept

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where this attempt begins."""
        self._first = trainer.global_step
        if trainer.is_global_zero:
            _clock(self._folder, self._attempt).parent.mkdir(parents=True, exist_ok=True)
            _clock(self._folder, self._attempt).write_text(f"step,seconds\n{self._first},0.0\n", encoding="utf-8")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step, and note the time now and then."""
        self._steps = trainer.global_step - self._first
        now = time.monotonic()
        if trainer.is_global_zero and now - self._written >= SECONDS_BETWEEN_ROWS:
            self._written = now
            with _clock(self._folder, self._attempt).open("a", encoding="utf-8") as file:
                file.write(f"{trainer.global_step},{self._throughput.seconds!r}\n")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what all attempts have added so far; collective."""
        counted = self._throughput
        own = (counted.real_tokens, counted.positions, counted.padding, counted.seconds, peak_memory_gib())
        tokens, positions, padding, seconds, peaks = zip(*everyone(own), strict=True)
        share = Share(
            attempt=self._attempt,
            steps=self._steps,
            tokens=sum(tokens),
            positions=sum(positions),
            padding=sum(padding),
            seconds=max(seconds),
            peak=max(peaks),
        )
        checkpoint[SAVED] = [asdict(one) for one in (*self._earlier, share)]

    def report(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """For `report.json`: figures of the whole run, and one mapping for each attempt; after `Throughput.gather`.

        Of an attempt: `attempt`, `began` and `command` as in environment.json, `steps` and `tokens` that are part of
        the result, `training_seconds`, and of these `lost_seconds`, in which `lost_steps` were trained that are not.
        None stands for what an earlier version of nashtune has not written down.
        """
        own = self._throughput
        shares = [
            *self._earlier,
            Share(
                attempt=self._attempt,
                steps=self._steps,
                tokens=own.real_tokens,
                positions=own.positions,
                padding=own.padding,
                seconds=own.seconds,
                peak=own.peak,
            ),
        ]
        by_number = {one.attempt: one for one in shares}
        attempts = [_row(one, None, {}) for one in shares if one.attempt is None]
        for number in range(self._attempt + 1):
            attempts.append(_row(by_number.get(number), *_known(self._folder, number)))
            attempts[-1]["attempt"] = number
        lost = sum(one["lost_seconds"] or 0.0 for one in attempts)
        kept = max(sum(one.seconds for one in shares), 1e-9)
        tokens, positions = sum(one.tokens for one in shares), sum(one.positions for one in shares)
        figures = {
            "tokens": tokens,
            "tokens_per_second": tokens / kept,
            "positions_per_second": positions / kept,
            "padding_share": sum(one.padding for one in shares) / max(1, positions),
            "training_seconds": sum(one.seconds for one in shares) + lost,
            "lost_seconds": lost,
            "peak_memory_gib": max(one.peak for one in shares),
        }
        return figures, attempts


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """How far an attempt came, as its clock says: optimiser steps, and seconds inside training batches."""

    steps: int
    seconds: float


def _row(share: Share | None, clock: _Clock | None, environment: Mapping[str, Any]) -> dict[str, Any]:
    """An attempt in the report."""
    steps, seconds = (share.steps, share.seconds) if share is not None else (0, 0.0)
    known = share is not None or clock is not None
    lost_steps = max(0, clock.steps - steps) if clock is not None else 0
    lost_seconds = max(0.0, clock.seconds - seconds) if clock is not None else 0.0
    return {
        "attempt": None,
        "began": environment.get("began"),
        "command": environment.get("command"),
        "steps": steps if known else None,
        "tokens": (share.tokens if share is not None else 0) if known else None,
        "training_seconds": seconds + lost_seconds if known else None,
        "lost_steps": lost_steps if known else None,
        "lost_seconds": lost_seconds if known else None,
    }


def _known(folder: Path, number: int) -> tuple[_Clock | None, Mapping[str, Any]]:
    """What the run folder says of an attempt; no clock where an earlier version of nashtune has trained.

    A run has to end whatever has become of these files: of one that cannot be read, it says so and goes without.
    """
    file = folder / (f"environment.{number}.json" if number else "environment.json")
    environment: Mapping[str, Any] = {}
    try:
        environment = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError:
        note(f"{file} cannot be read, for it was altered; the report goes without")
    clock = _clock(folder, number)
    if not clock.exists():
        trained = (clock.parent / "metrics.csv").exists()
        return (None if trained else _Clock(steps=0, seconds=0.0)), environment
    try:
        lines = clock.read_text(encoding="utf-8").split("\n")[1:-1]  # the last one is empty, or was cut short
        (first, _), (last, seconds) = lines[0].split(","), lines[-1].split(",")
        return _Clock(steps=int(last) - int(first), seconds=float(seconds)), environment
    except (ValueError, IndexError):
        note(f"{clock} cannot be read, for it was cut short or altered; the report goes without")
        return None, environment


def _clock(folder: Path, number: int) -> Path:
    return folder / "logs" / f"attempt_{number}" / "time.csv"
