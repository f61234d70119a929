"""A micro-batch in parts: some of its rows, and how many fit into one forward and backward pass.

Legend: B = pairs, N = sequences, M = completion tokens, L = ranked lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nashtune.data.pass_sizes import fill_passes
from nashtune.interfaces import LogProbEngine, TokenBatch

PER_ROW = ("rows", "p_chosen", "desirable", "margin", "share", "sizes")
PER_SEQUENCE = (
    *("input_ids", "attention_mask", "completion_mask", "win_rate", "score", "variance", "finished", "group"),
    *("beta", "levels", "trunk"),
)
ENDS = "_end"  # names of what is there once for each rollout, among what is there for each of its tokens


def select(batch: TokenBatch, rows: Sequence[int]) -> TokenBatch:
    """Some rows of a batch on the host, in that order, without the padding that only others needed.

    Args:
        batch: Of any kind.
        rows: Numbers within the batch.
    """
    sequences = torch.tensor(_sequences(batch, rows))
    longest = int(batch.attention_mask[sequences].sum(1).max())
    parts: dict[str, Tensor] = {}
    for names, picked in ((PER_ROW, torch.tensor(rows)), (PER_SEQUENCE, sequences)):
        for name in names:
            if (value := getattr(batch, name)) is not None:
                parts[name] = value[picked]
    for name in ("input_ids", "attention_mask", "completion_mask"):
        parts[name] = parts[name][:, :longest]
    tokens = _tokens(batch, sequences) if batch.per_token else sequences
    return replace(
        batch,
        **parts,  # type: ignore[arg-type]  # tensors, by the names of the batch's fields
        per_token={n: v[sequences if n.endswith(ENDS) else tokens] for n, v in batch.per_token.items()},
        known={name: value[sequences] for name, value in batch.known.items()},
        counts=None,
        layout=None,
    )


def rows_of_passes(batch: TokenBatch, engine: LogProbEngine, budget: int) -> list[list[int]]:
    """The rows of a batch in passes of at most `budget` positions, rows alike in length together.

    See `fill_passes`. Answers to one prompt stay side by side, so that an engine that shares prompts finds them
    together. The result depends on the batch alone.

    Args:
        batch: On the host.
        engine: Counts the positions.
        budget: Positions that the backbone runs on.
    """
    count = len(batch)
    if not engine.pads and engine.plan(batch).positions <= budget:
        return [list(range(count))]
    cost = [engine.plan(select(batch, [row])).positions for row in range(count)]
    group = batch.group.tolist() if batch.group is not None else None
    return fill_passes(cost, budget, pads=engine.pads, group=group)


def _sequences(batch: TokenBatch, rows: Sequence[int]) -> list[int]:
    """Numbers of the sequences that rows consist of, in the order that the batch's kind has them in."""
    if batch.kind in ("pairs", "examples"):
        return [*rows, *(len(batch) + row for row in rows)]
    if batch.kind == "ranked":
        assert batch.sizes is not None, "a ranked batch carries the sizes of its lists"
        ends = batch.sizes.cumsum(0).tolist()
        return [n for row in rows for n in range(ends[row] - int(batch.sizes[row]), ends[row])]
    return list(rows)


def _tokens(batch: TokenBatch, sequences: Tensor) -> Tensor:
    """Numbers of the completion tokens of sequences."""
    lengths = batch.completion_mask.sum(1)
    starts = lengths.cumsum(0) - lengths
    return torch.cat([torch.arange(int(starts[n]), int(starts[n] + lengths[n])) for n in sequences.tolist()])
