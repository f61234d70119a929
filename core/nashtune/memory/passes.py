"""Which forward and backward passes a run makes: their positions and completion tokens, as engines count them.

Legend: R = rows, P = prompt tokens, C = completion tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nashtune.data.order import BatchOrder
from nashtune.data.pass_sizes import fill_passes
from nashtune.memory.lengths import RowLengths

MOST_BATCHES = 4000
"""Batches that are looked at; the order is shuffled, so later ones are no longer than those."""
PADS = ("tiled", "dense")


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One forward and backward.

    Args:
        positions: Positions that the backbone runs on.
        targets: Completion tokens, which go through the LM head.
        width: Tokens of the longest sequence.
        accumulates: Whether a gradient is there already: the batch has earlier passes, or the step earlier batches.
    """

    positions: int
    targets: int
    width: int
    accumulates: bool


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How rows become passes.

    Args:
        engine: Of the run: what is shared and what is padded.
        budget: Most positions of a pass; None where a batch is one pass.
        mismatched: Whether every row comes twice, with another row's completion (KTO's KL estimate).
        accumulates: Whether an optimiser step has several batches.
    """

    engine: str
    budget: int | None
    mismatched: bool = False
    accumulates: bool = False


def training_passes(lengths: RowLengths, order: BatchOrder, batching: Batching, batches: int | None) -> Iterator[Pass]:
    """The passes of the first epoch, as far as they are looked at.

    Args:
        lengths: Of the training rows.
        order: Of the run.
        batching: Of the run.
        batches: Micro-batches that the run has at most; None for all of an epoch.
    """
    most = min(len(order), MOST_BATCHES, batches if batches is not None else len(order))
    for index in range(most):
        rows = np.asarray(order.batch(0, index))
        for number, part in enumerate(_parts(lengths, rows, batching)):
            yield _pass(lengths, part, batching, number > 0 or batching.accumulates)


def _cost(lengths: RowLengths, rows: Sequence[int] | np.ndarray, batching: Batching) -> list[int]:
    """Positions of each row by itself."""
    prompt, longest, total = lengths.prompt[rows], lengths.longest[rows], lengths.total[rows]
    sequences = lengths.completions[rows] * (2 if batching.mismatched else 1)
    if batching.engine in PADS:
        return list(map(int, sequences * (prompt + longest)))
    if batching.mismatched:
        total = 2 * total
    shared = 1 if batching.engine != "packed" else sequences
    return list(map(int, prompt * shared + total))


def _parts(lengths: RowLengths, rows: np.ndarray, batching: Batching) -> Iterator[np.ndarray]:
    """The rows of a batch in passes within the budget, rows alike in length together."""
    budget, pads = batching.budget, batching.engine in PADS
    if budget is None or (not pads and _pass(lengths, rows, batching, False).positions <= budget):
        yield rows
        return
    yield from (rows[part] for part in fill_passes(_cost(lengths, rows, batching), budget, pads=pads))


def _pass(lengths: RowLengths, rows: np.ndarray, batching: Batching, accumulates: bool) -> Pass:
    copies = 2 if batching.mismatched else 1
    width = int((lengths.prompt[rows] + lengths.longest[rows]).max())
    sequences = int(lengths.completions[rows].sum()) * copies
    positions = sequences * width if batching.engine in PADS else sum(_cost(lengths, rows, batching))
    targets = int(lengths.total[rows].sum()) * copies
    return Pass(positions=positions, targets=targets, width=width, accumulates=accumulates)
