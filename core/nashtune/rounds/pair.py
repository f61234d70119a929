"""Phase `pair`: judgements become pairs.

Judging drives the pairing's generators and writes every answer down; pairing drives them again over what was written,
so that it needs no oracle.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

import numpy as np

from nashtune.errors import InputError
from nashtune.interfaces import Comparisons, Paired
from nashtune.journal.records import PAIRS, read_judgements, write_pairs
from nashtune.pairing.drive import drive
from nashtune.ranks import rank, together
from nashtune.rounds.answers import answers
from nashtune.rounds.lost import require
from nashtune.rounds.parts import parts
from nashtune.rounds.table import Table

Asked = list[tuple[int, int, int]]  # (place of the prompt in its part, first k, second k)


def pair(table: Table, round: int, numbers: Sequence[int], *, complete: bool) -> None:
    """Turn the round's judgements into pairs; rollouts need none. Rank 0 writes what all ranks read.

    `complete`: they must be there.
    """
    if table.pairing is None:
        return
    if complete:
        require(table, round, [PAIRS])
        return
    with together("pair"):
        if rank() == 0 and not table.journal.has(round, PAIRS):
            write_pairs(table.journal, round, *made(table, round, numbers))


def made(table: Table, round: int, numbers: Sequence[int]) -> tuple[list[tuple[int, Paired]], dict[str, int]]:
    """The pairs that the round's judgements make, each with the number of its prompt; and why others were not made."""
    rows: list[tuple[int, Paired]] = []
    dropped: Counter[str] = Counter()
    for part, chunk in enumerate(parts(table, round, numbers)):
        side = answers(table, round, "policy", part, chunk)
        recall = _recall(table, round, part, chunk)
        for place, found in enumerate(drive(generators(table, round, chunk, side.n), recall)):
            dropped.update(found.dropped)
            for one in found.pairs:
                if side.completions[place, one.chosen].token_ids == side.completions[place, one.rejected].token_ids:
                    dropped["identical"] += 1  # a pair of equal texts has no gradient, whatever the label
                else:
                    rows.append((chunk[place], one))
    return rows, dict(dropped)


def _recall(table: Table, round: int, part: int, numbers: Sequence[int]) -> Callable[[Asked], list[float]]:
    """What was answered, in the order in which it was asked: an oracle that draws may answer a question twice."""
    known: dict[tuple[int, int, int], deque[float]] = {}
    for one in read_judgements(table.journal, round, part):
        known.setdefault((one.prompt, one.first, one.second), deque()).append(one.p)

    def answer(place: int, i: int, j: int) -> float:
        found = known.get((numbers[place], i, j))
        if not found:
            raise InputError(
                f"{table.journal.folder}, round {round}: no judgement of completions {i} and {j} of prompt "
                f"{numbers[place]}; it was judged for another pairing. Give the spec.pairing and "
                "spec.sampler.completions that it was judged with, or an oracle"
            )
        return found.popleft()

    return lambda asked: [answer(*one) for one in asked]


def generators(table: Table, round: int, numbers: Sequence[int], n: int) -> list[Comparisons]:
    """The pairing's comparisons of each prompt, from its beginning."""
    assert table.pairing is not None
    return [table.pairing.compare(n, np.random.default_rng([table.seed, round, number])) for number in numbers]
