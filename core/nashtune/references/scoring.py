"""Scoring sequences once with a frozen model, and finding their log-probs again by content.

Sequences are read in windows. Within a window, those that are known are left out and the others are sorted by length,
the answers to one prompt together, so that an engine computes little padding and a shared prompt once. Memory is that
of a window and of one pass, however many rows there are.

Legend: N = sequences, T = positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nashtune.data.pass_sizes import fill_passes
from nashtune.data.passes import pass_tokens
from nashtune.errors import InputError
from nashtune.interfaces.batch import TokenBatch
from nashtune.interfaces.policy import LogProbEngine
from nashtune.models.mode import frozen_mode
from nashtune.references.store import Row, Sums, digest, digests, rows_of
from nashtune.sharding.tensors import same_for_all
from nashtune.terminal import with_bar

WINDOW_TOKENS = 1 << 18
"""Tokens of a window: many passes, so that sorting leaves little padding, and few minutes of work for a small model."""

SHORTEST: Row = (np.zeros(2, dtype=np.int64), np.array([False, True]))
"""A sequence that every model can score."""

Window = dict[bytes, Row]


def windows(batches: Iterable[TokenBatch], tokens: int = WINDOW_TOKENS) -> Iterator[Window]:
    """The different sequences of batches, so many tokens at a time; which ones depends on the batches alone.

    Args:
        batches: Of any size and kind.
        tokens: A window ends with the batch that brings it to this many.
    """
    window: Window = {}
    held = 0
    for batch in batches:
        for row in rows_of(batch):
            name = digest(row)
            if name not in window:
                window[name] = row
                held += len(row[0])
        if held >= tokens:
            yield window
            window, held = {}, 0
    if window:
        yield window


def score_new(
    known: Sums, window: Window, model: Any, engine: LogProbEngine, device: torch.device, title: str | None = None
) -> Sums:
    """The sums of a window's sequences that are not known yet: each is run through the model once.

    One completion may stand in many pairs of a prompt. Collective where the model is cut up: ranks run equally many
    passes, perhaps for nothing.

    Args:
        known: What needs no scoring.
        window: Sequences by digest.
        model: A causal LM; it runs without gradient and without dropout.
        engine: The run's engine.
        device: Where the model is.
        title: Of a progress bar; None shows none.

    Returns:
        Only the new ones, in the dtype that the engine gives.
    """
    names = list(window)
    there, _ = known.find(names)
    names = [name for name, old in zip(names, there, strict=True) if not old]
    rows = [window[name] for name in names]
    budget = pass_tokens(None, device)
    picked = passes(rows, budget, pads=engine.pads)
    again = same_for_all(model, len(picked)) - len(picked)  # passes that only keep the ranks in step
    found: list[tuple[Tensor, Tensor]] = []
    with frozen_mode(model):
        for numbers in with_bar(picked, title) if title else picked:
            on_host = _batch([rows[i] for i in numbers])
            batch = replace(on_host, layout=engine.plan(on_host)).to(device)
            scored = engine.logprobs(engine.forward(model, batch), batch)
            found.append((scored.sums, scored.lengths))
        for _ in range(again):
            on_host = _batch([SHORTEST])
            batch = replace(on_host, layout=engine.plan(on_host)).to(device)
            engine.logprobs(engine.forward(model, batch), batch)
    order = [i for numbers in picked for i in numbers]
    if not order:
        return Sums.of([], known.sums[:0], known.lengths[:0])
    # one transfer for the window: a pass waits for no device
    sums, lengths = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return Sums.of([names[i] for i in order], sums, lengths)


def passes(rows: Sequence[Row], budget: int, *, pads: bool) -> list[list[int]]:
    """Numbers of the rows, in passes of at most `budget` tokens, padding included where the engine pads.

    The longest come first, so that memory that does not suffice shows at once; answers to one prompt are side by side.
    """
    first: dict[bytes, int] = {}
    group = [first.setdefault(ids[: int(scored.argmax())].tobytes(), i) for i, (ids, scored) in enumerate(rows)]
    return fill_passes([len(ids) for ids, _ in rows], budget, pads=pads, group=group)


def look_up(tables: Sequence[Sums], batch: TokenBatch, dtype: torch.dtype, missing: str) -> Tensor:
    """The kept sums of a batch (N,), on the host.

    Args:
        tables: Where to look, in this order.
        batch: What is asked for: pairs, examples or rollouts.
        dtype: Of the sums.
        missing: Message for a sequence that is not there or has another length; `{row}` is its row.

    Raises:
        InputError: with that message.
    """
    names = digests(batch)
    found, lengths = np.zeros(len(names)), np.full(len(names), -1)
    for table in tables:
        there, place = table.find(names)
        found[there], lengths[there] = table.sums[place[there]], table.lengths[place[there]]
    wrong = np.flatnonzero(lengths != batch.completion_mask.sum(1).cpu().numpy())
    if len(wrong):
        raise InputError(missing.format(row=int(batch.rows[int(wrong[0]) % len(batch)])))
    return torch.from_numpy(found).to(dtype)


def _batch(rows: Sequence[Row]) -> TokenBatch:
    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros((len(rows), width), dtype=torch.long)
    attention_mask, completion_mask = torch.zeros_like(input_ids), torch.zeros_like(input_ids, dtype=torch.bool)
    for n, (ids, scored) in enumerate(rows):
        input_ids[n, : len(ids)] = torch.from_numpy(ids)
        attention_mask[n, : len(ids)] = 1
        completion_mask[n, : len(ids)] = torch.from_numpy(scored)
    return TokenBatch(
        kind="rollouts",
        input_ids=input_ids,
        attention_mask=attention_mask,
        completion_mask=completion_mask,
        rows=torch.arange(len(rows)),
    )
