"""Numbers of a round's rows that ranks compute together: each journals those of its share, and all read all.

JOURNAL/round-001/NAME-000000.safetensors   tensors of some rows, `rows` among them; named by the first of the rows

A file says which rows it holds, so a run that was killed here goes on with any number of ranks: what is missing is
divided among those that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nashtune.ranks import most, rank, together, world
from nashtune.rounds.lost import lost
from nashtune.rounds.table import Table
from nashtune.rounds.tensors import ROWS, wrong_rows


def shared(
    table: Table,
    round: int,
    name: str,
    own: Sequence[int],
    make: Callable[[list[int]], dict[str, Tensor]],
    *,
    count: int,
    wrong: Callable[[dict[str, Tensor]], str | None],
    complete: bool,
) -> list[dict[str, Tensor]]:
    """The tensors of all rows, in one mapping for each file, ordered by name.

    Args:
        table: The game.
        round: From 1.
        name: Of the files, up to the number of their first row.
        own: The rows of this rank's share; the shares of all ranks together are all rows.
        make: Tensors of some rows. Called on every rank where a row is missing on any, perhaps with none.
        count: All rows.
        wrong: What keeps the tensors of a file from being of its rows; None where nothing does.
        complete: Whether nothing may be made any more.

    Raises:
        InputError: something is missing that had to be there, or a file that was there was altered.
    """
    done = _known(table, round, name, count, wrong)
    missing = sorted(set(own) - done)
    if most(len(missing)):
        if complete:
            raise lost(table, round, f"all rows of {name}-*.safetensors")
        made = make(missing)
        with together(name):
            if missing:
                rows = torch.tensor(missing, dtype=torch.int32)
                table.journal.write_tensors(round, f"{name}-{missing[0]:06d}", {**made, ROWS: rows})
    return list(_read(table, round, name).values())


def contiguous(count: int) -> range:
    """This rank's share of so many rows, in their order; perhaps none."""
    return range(count * rank() // world(), count * (rank() + 1) // world())


def _known(
    table: Table, round: int, name: str, count: int, wrong: Callable[[dict[str, Tensor]], str | None]
) -> set[int]:
    """The rows that files hold already. Of other processes and attempts, so that they are looked at."""
    known: set[int] = set()
    for file, tensors in _read(table, round, name).items():
        why = wrong_rows(tensors, count) or wrong(tensors)
        rows = set() if why else set(tensors[ROWS].tolist())
        if not why and known & rows:
            why = f"'{ROWS}' names row {min(known & rows)}, which another file holds"
        if why:
            raise table.journal.altered(round, f"{file}.safetensors", why)
        known |= rows
    return known


def _read(table: Table, round: int, name: str) -> dict[str, dict[str, Tensor]]:
    files = sorted(file for file in table.journal.names(round) if file.rpartition("-")[0] == name)
    return {file: table.journal.read_tensors(round, file) for file in files}
