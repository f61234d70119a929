"""Executes a schedule's phases on a language model, up to each update; the trainer does the updates.

Everything a phase makes is in the journal or in the snapshot bank before the next phase begins, and a phase that finds
its result there does nothing. So a run that was killed anywhere goes through the same phases again and repeats none.
Once an update has taken a step, the phases before it only read: the weights that they worked with may be gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nashtune.data.prompts import round_prompts
from nashtune.errors import InputError
from nashtune.interfaces import Reference
from nashtune.interfaces.schedule import START, Anchor, Collect, Judge, Pair, Snapshot, Update
from nashtune.ranks import everyone
from nashtune.rounds.anchor import anchor
from nashtune.rounds.collect import collect
from nashtune.rounds.judge import judge
from nashtune.rounds.load import load_rows
from nashtune.rounds.measure import measure
from nashtune.rounds.pair import pair
from nashtune.rounds.rows import RolloutRow, Rows
from nashtune.rounds.table import Table


@dataclass(frozen=True)
class Work:
    """One update to be done.

    Args:
        number: Of the update over the whole run, from 0.
        round: From 1.
        phase: What the schedule says of it.
        rows: What it trains on.
    """

    number: int
    round: int
    phase: Update
    rows: Rows


def updates(table: Table, references: Mapping[str, Reference], done: int, step: int, *, new: bool) -> Iterator[Work]:
    """Run phases and yield updates, from number `done` on; what follows a yield runs when the update is over.

    Args:
        table: The game.
        references: The spec's; anchored ones get their log-probs before each update.
        done: Updates that are over already. The live weights are those after them (or in the middle of the next one).
        step: Optimiser steps of the next one that are done.
        new: Whether the live weights are the starting ones: no checkpoint was restored.

    Raises:
        InputError: the run's snapshots, or what an update was trained on, are not there to go on with.
    """
    if not _known(table, START):
        if not new:
            raise InputError(
                f"{table.bank.folder}: the run's snapshots are gone, and a game cannot go on without them; restore "
                "them from a copy, or start a new run without --ckpt_path"
            )
        table.bank.save(START, table.policy)
    number = 0
    for t, declared in enumerate(table.rounds, start=1):
        table.progress.round(t, len(table.rounds))
        numbers = round_prompts(len(table.prompts), len(table.rounds), table.prompts_per_round, table.seed, t)
        table.forget(t)
        rows: Rows | None = None
        for phase in declared.phases:
            begun = number < done or (number == done and step > 0)  # the update that comes next in this order
            if isinstance(phase, Update):
                if number >= done:
                    rows = load_rows(table, t, numbers) if rows is None else rows
                    yield Work(number, t, phase, rows)
                number += 1
            elif isinstance(phase, Snapshot):
                if number >= done:
                    _snapshot(table, phase)
            elif isinstance(phase, Collect):
                collect(table, t, phase, numbers, phase.policy or f"update@{number}", complete=begun)
            elif isinstance(phase, Judge):
                judge(table, t, numbers, complete=begun)
            elif isinstance(phase, Pair):
                pair(table, t, numbers, complete=begun)
            elif number >= done:
                assert isinstance(phase, Anchor)
                rows = load_rows(table, t, numbers) if rows is None else rows
                rows = _anchored(table, t, phase, rows, references, number, complete=begun)


def _anchored(
    table: Table,
    round: int,
    phase: Anchor,
    rows: Rows,
    references: Mapping[str, Reference],
    number: int,
    *,
    complete: bool,
) -> Rows:
    rollouts = [row for row in rows if isinstance(row, RolloutRow)]
    if not rollouts:
        anchor(table, round, phase, rows, references, number, complete=complete)
        return rows
    measured = measure(table, round, rollouts, references, number, complete=complete)
    return table.prepare(measured, round, complete) if table.prepare is not None else measured


def _snapshot(table: Table, phase: Snapshot) -> None:
    if phase.average is not None:
        if phase.name not in table.averages:
            table.average(phase.name, dict(phase.average))
    elif not _known(table, phase.name):
        table.bank.save(phase.name, table.policy)


def _known(table: Table, name: str) -> bool:
    """Whether there is a snapshot, as rank 0 sees it: another rank may look when rank 0 has just written it."""
    return bool(everyone(table.bank.has(name))[0])
