"""Phase `pair`: judgements become pairs.

Judging drives the pairing's generators and writes every answer down; pairing drives them again over what was written,
so that it needs no oracle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from nashtune.interfaces import Comparisons, Paired
from nashtune.journal.records import PAIRS, read_judgements, write_pairs
from nashtune.pairing.drive import drive
from nashtune.rounds.answers import answers
from nashtune.rounds.table import Table, parts

Asked = list[tuple[int, int, int]]  # (place of the prompt in its part, first k, second k)


def pair(table: Table, round: int, numbers: Sequence[int]) -> None:
    """Turn the round's judgements into pairs; rollouts need none."""
    if table.pairing is None or table.journal.has(round, PAIRS):
        return
    rows: list[tuple[int, Paired]] = []
    dropped: Counter[str] = Counter()
    for part, chunk in enumerate(parts(numbers)):
        side = answers(table, round, "policy", part, chunk)
        known = {(one.prompt, one.first, one.second): one.p for one in read_judgements(table.journal, round, part)}

        def recall(
            asked: Asked, known: dict[tuple[int, int, int], float] = known, chunk: Sequence[int] = chunk
        ) -> list[float]:
            return [known[chunk[place], i, j] for place, i, j in asked]

        for place, made in enumerate(drive(generators(table, round, chunk, side.n), recall)):
            dropped.update(made.dropped)
            for one in made.pairs:
                if side.completions[place, one.chosen].token_ids == side.completions[place, one.rejected].token_ids:
                    dropped["identical"] += 1  # a pair of equal texts has no gradient, whatever the label
                else:
                    rows.append((chunk[place], one))
    write_pairs(table.journal, round, rows, dropped)


def _recall(known: dict[tuple[int, int, int], float], numbers: Sequence[int]) -> Callable[[Asked], list[float]]:
    return lambda asked: [known[numbers[place], i, j] for place, i, j in asked]


def generators(table: Table, round: int, numbers: Sequence[int], n: int) -> list[Comparisons]:
    """The pairing's comparisons of each prompt, from its beginning."""
    assert table.pairing is not None
    return [table.pairing.compare(n, np.random.default_rng([table.seed, round, number])) for number in numbers]
