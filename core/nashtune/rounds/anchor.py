"""Phase `anchor`: log-probs of the round's pairs under frozen snapshots, once, in the one live model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from nashtune.interfaces import Reference, TokenBatch
from nashtune.interfaces.schedule import START, Anchor
from nashtune.references.anchored import AnchoredReference, from_tensors, mix, score_rows, to_tensors
from nashtune.references.store import Sums
from nashtune.rounds.rows import Rows, collate
from nashtune.rounds.table import Table

Entries = Sums


def anchor(
    table: Table, round: int, phase: Anchor, rows: Rows, references: Mapping[str, Reference], number: int
) -> None:
    """Give each anchored reference its log-probs, from the journal where it holds them.

    Args:
        table: The game.
        round: From 1.
        phase: What `previous` is.
        rows: What the update trains on.
        references: The spec's, by name.
        number: Of the update that comes next, over the whole run.
    """
    wanted = {
        name: {START: 1.0} if reference.of == START else dict(phase.previous)
        for name, reference in references.items()
        if isinstance(reference, AnchoredReference)
    }
    scored: dict[str, Entries] = {}
    for name, snapshots in wanted.items():
        file = f"anchor-{name}-{number:04d}"
        if not table.journal.has(round, file):
            for snapshot in snapshots:
                if snapshot not in scored:
                    scored[snapshot] = _score(table, snapshot, rows)
            entries = mix([(weight, scored[snapshot]) for snapshot, weight in snapshots.items()])
            table.journal.write_tensors(round, file, to_tensors(entries))
        reference = references[name]
        assert isinstance(reference, AnchoredReference)
        reference.set(from_tensors(table.journal.read_tensors(round, file)))


def _score(table: Table, snapshot: str, rows: Rows) -> Entries:
    began = time.perf_counter()
    table.progress.phase(f"anchor {snapshot}", len(rows), "pairs")
    with table.weights(snapshot), table.autocast():
        entries = score_rows(table.policy, _batches(table, rows), table.engine)
    table.progress.done(f"{len(rows)} pairs, {time.perf_counter() - began:.1f} s")
    return entries


def _batches(table: Table, rows: Rows) -> Iterator[TokenBatch]:
    for start in range(0, len(rows), table.batch_size):
        yield collate(rows, range(start, min(start + table.batch_size, len(rows))))
        table.progress.advance(min(table.batch_size, len(rows) - start))
