"""Scoring sequences once with a frozen model, and finding their log-probs again by content.

Legend: N = sequences, T = positions.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch

from nashtune.errors import InputError
from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.policy import LogProbEngine
from nashtune.models.mode import frozen_mode
from nashtune.references.store import Entry, digests


def score_new(
    entries: MutableMapping[bytes, Entry], model: Any, batch: TokenBatch, engine: LogProbEngine, device: torch.device
) -> None:
    """Adds the sequences of a batch that are not among the entries yet: each is run through the model once.

    One completion may stand in many pairs of a prompt.

    Args:
        entries: Sum and length by the digest of a sequence; grows.
        model: A causal LM; it runs without gradient and without dropout.
        batch: Sequences of any kind.
        engine: The run's engine.
        device: Where the model is.
    """
    new: dict[bytes, int] = {}
    for i, name in enumerate(digests(batch)):
        if name not in entries:
            new.setdefault(name, i)
    if not new:
        return
    rows = torch.tensor(list(new.values()), device=batch.input_ids.device)
    single = TokenBatch(
        kind="rollouts",
        input_ids=batch.input_ids[rows],
        attention_mask=batch.attention_mask[rows],
        completion_mask=batch.completion_mask[rows],
        rows=rows,
    ).to(device)
    with frozen_mode(model):
        scored = engine.logprobs(engine.forward(model, single), single)
    entries.update(zip(new, zip(scored.sums.tolist(), scored.lengths.tolist(), strict=True), strict=True))


def look_up(entries: Mapping[bytes, Entry], batch: TokenBatch, dtype: torch.dtype, missing: str) -> LogProbs:
    """The kept sums of a batch (N,); `token_logp` is empty, because only sums are kept.

    Args:
        entries: Sum and length by the digest of a sequence.
        batch: What is asked for.
        dtype: Of the sums.
        missing: Message for a sequence that is not there or has another length; `{row}` is its row.

    Raises:
        InputError: with that message.
    """
    lengths = batch.completion_mask.sum(1)
    found: list[float] = []
    for i, (name, length) in enumerate(zip(digests(batch), lengths.tolist(), strict=True)):
        entry = entries.get(name)
        if entry is None or entry[1] != length:
            raise InputError(missing.format(row=int(batch.rows[i % len(batch)])))
        found.append(entry[0])
    sums = torch.tensor(found, dtype=dtype, device=lengths.device)
    return LogProbs(sums=sums, lengths=lengths, token_logp=sums.new_empty(0))
