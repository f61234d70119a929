"""Phase `anchor`: log-probs of the round's pairs under frozen snapshots, once, in the one live model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial, reduce

from torch import Tensor

from nashtune.interfaces import Reference, TokenBatch
from nashtune.interfaces.schedule import START, Anchor
from nashtune.ranks import of_this_rank, together
from nashtune.references.anchored import AnchoredReference, from_tensors, mix, score_rows, to_tensors
from nashtune.references.store import Sums, no_sums
from nashtune.rounds.rows import Rows, collate
from nashtune.rounds.shares import contiguous, shared
from nashtune.rounds.table import Table
from nashtune.rounds.tensors import wrong_sums


def anchor(
    table: Table,
    round: int,
    phase: Anchor,
    rows: Rows,
    references: Mapping[str, Reference],
    number: int,
    *,
    complete: bool,
) -> None:
    """Give each anchored reference its log-probs, from the journal where it holds them; each rank scores its share.

    Args:
        table: The game.
        round: From 1.
        phase: What `previous` is.
        rows: What the update trains on.
        references: The spec's, by name.
        number: Of the update that comes next, over the whole run.
        complete: Whether the update has begun: what is missing is an error.
    """
    scored: dict[tuple[str, tuple[int, ...]], Sums] = {}

    def make(snapshots: Mapping[str, float], missing: list[int]) -> dict[str, Tensor]:
        keys = [(snapshot, tuple(missing)) for snapshot in snapshots]
        for key in keys:
            if key not in scored:
                scored[key] = _score(table, key[0], rows, missing)
        return to_tensors(mix([(weight, scored[key]) for weight, key in zip(snapshots.values(), keys, strict=True)]))

    for name, reference in references.items():
        if isinstance(reference, AnchoredReference):
            snapshots = {START: 1.0} if reference.of == START else dict(phase.previous)
            file = f"anchor-{name}-{number:04d}"
            own = contiguous(len(rows))
            found = shared(
                *(table, round, file, own, partial(make, snapshots)),
                count=len(rows),
                wrong=wrong_sums,
                complete=complete,
            )
            reference.set(reduce(Sums.merged, map(from_tensors, found), no_sums()))


def _score(table: Table, snapshot: str, rows: Rows, picked: Sequence[int]) -> Sums:
    began = time.perf_counter()
    table.progress.phase(f"anchor {snapshot}", len(picked), of_this_rank("pairs"))
    with table.weights(snapshot), table.autocast(), together(f"anchor {snapshot}"):
        entries = score_rows(table.policy, _batches(table, rows, picked), table.engine)
    table.progress.done(f"{len(rows)} pairs, {time.perf_counter() - began:.1f} s")
    return entries


def _batches(table: Table, rows: Rows, picked: Sequence[int]) -> Iterator[TokenBatch]:
    for start in range(0, len(picked), table.batch_size):
        batch = picked[start : start + table.batch_size]
        yield collate(rows, batch)
        table.progress.advance(len(batch))
