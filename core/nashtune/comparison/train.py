"""Trains every spec with every seed, one after another; what is trained is not trained again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from nashtune.comparison.folder import run_folder
from nashtune.comparison.missing import untrained_run
from nashtune.comparison.plan import Entry
from nashtune.errors import InputError, Interrupted
from nashtune.interfaces.stage import Work
from nashtune.pipeline.fit_command import can_go_on, finished, train


def train_all(
    entries: Sequence[Entry],
    seeds: Sequence[int],
    folder: Path,
    say: Callable[[str], None],
    *,
    lock: int,
    check: Callable[[], None],
    stdout: int | None = None,
) -> None:
    """`nashtune fit` for each, in a process of its own.

    Args:
        entries: The specs.
        seeds: Of each.
        folder: The comparison's; this process holds it.
        say: Prints a line of progress.
        lock: File descriptor that the trainings inherit.
        check: Called before each, and raises where it would not be like those before it.
        stdout: File descriptor for what they print; None for this process's own.

    Raises:
        InputError: a training fails; it has said why. One that ends without an optimiser step does not fail: its
            report is kept, and no policy.
        Interrupted: it was stopped.
    """
    total = len(entries) * len(seeds)
    took: list[float] = []
    pairs = [(entry, seed) for seed in seeds for entry in entries]
    for number, (entry, seed) in enumerate(pairs, start=1):
        run = run_folder(folder, entry.name, seed)
        head = f"train {number}/{total} {entry.name}, seed {seed}"
        if finished(run):
            say(f"{head}: done before")
            continue
        if why := untrained_run(run):
            say(f"{head}: nothing was trained before: {why}")
            continue
        check()
        left = f", about {_minutes(sum(took) / len(took) * (total - number + 1))} of training left" if took else ""
        say(f"{head}, {datetime.now():%H:%M}{left}: {run}{_from(run)}")
        run.parent.mkdir(parents=True, exist_ok=True)
        config = {"spec": entry.spec.to_dict(), **entry.config, "seed_everything": seed}
        began = time.monotonic()
        try:
            train(run, config, Work(folder=folder, say=say, stdout=stdout, inherit=(lock,)))
        except Interrupted as stopped:
            again = f"the comparison was stopped; `nashtune compare --run_dir {folder}` goes on with it"
            raise Interrupted(again, code=stopped.code) from stopped
        except InputError:
            if not untrained_run(run):
                raise
            say(f"{head}: nothing was trained, and it is not rated; the comparison goes on without it")
        took.append(time.monotonic() - began)


def _from(run: Path) -> str:
    """What a training that was stopped goes on from."""
    if not can_go_on(run):
        return ""
    steps = [int(found[1]) for file in run.glob("checkpoints/*.ckpt") if (found := re.match(r"step=(\d+)", file.name))]
    return f", from step {max(steps)} on" if steps else ", from what its journal has on"


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
