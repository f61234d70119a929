"""The parts in which a round's prompts are sampled, judged and journalled: after a kill, only unfinished ones again.

How many parts there are depends on the number of ranks that began the round, so they are written down before the first
completion is drawn; a run that goes on with another number of ranks keeps those of the round in progress.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nashtune.ranks import rank, share, together, world
from nashtune.rounds.lost import lost, require
from nashtune.rounds.table import Table
from nashtune.samplers.recorded_journal import PROMPTS, read_prompts, write_prompts

PART = 32  # prompts of a part at most: as many are sampled and judged again after a kill in the middle of a phase


def divide(numbers: Sequence[int], ranks: int) -> list[Sequence[int]]:
    """Prompts in parts of at most `PART`.

    Args:
        numbers: Of the prompts.
        ranks: With several, each gets as many parts as the others (where there are enough prompts), of sizes as equal
            as they can be: all wait for the one with the most prompts.
    """
    if ranks == 1:
        return [numbers[i : i + PART] for i in range(0, len(numbers), PART)]
    count = min(len(numbers), ranks * math.ceil(len(numbers) / (PART * ranks)))
    return [numbers[len(numbers) * i // count : len(numbers) * (i + 1) // count] for i in range(count)]


def record(table: Table, round: int, numbers: Sequence[int], *, complete: bool) -> None:
    """Write down the parts of a round that begins, for this number of ranks; `complete`: they must be there."""
    if complete:
        require(table, round, [PROMPTS])
        return
    with together("collect"):
        if rank() == 0 and not table.journal.has(round, PROMPTS):
            if table.journal.names(round):
                raise lost(table, round, PROMPTS, "without it nobody knows which parts the other files belong to")
            parts = divide(numbers, world())
            write_prompts(table.journal, round, parts, [table.prompts[i].prompt_ids for i in numbers])


def parts(table: Table, round: int, numbers: Sequence[int]) -> list[Sequence[int]]:
    """The parts of a round, as they were written down."""
    if not table.journal.has(round, PROMPTS):
        return divide(numbers, 1)
    known = read_prompts(table.journal, round)
    if sorted(known["prompt"]) != sorted(numbers):
        why = f"it has {len(known['prompt'])} prompts, which are not the {len(numbers)} of the round"
        raise table.journal.altered(round, f"{PROMPTS}.parquet", why)
    found: list[list[int]] = [[] for _ in range(max(known["part"], default=-1) + 1)]
    for number, part in zip(known["prompt"], known["part"], strict=True):
        found[part].append(number)
    return list(found)


def own_parts(table: Table, round: int, numbers: Sequence[int]) -> list[tuple[int, Sequence[int]]]:
    """Number and prompts of the parts that this rank does."""
    return share(list(enumerate(parts(table, round, numbers))))
