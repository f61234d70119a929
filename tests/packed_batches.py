"""Batches whose sequences begin alike, for tests of packing."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch

from nashtune.data.collate import completion_batch
from nashtune.interfaces import TokenBatch
from nashtune.testing import token_batch


def batch_of(sequences: list[tuple[list[int], list[int]]], kind: str = "rollouts", **columns: Any) -> TokenBatch:
    """Prompt and completion ids; for pairs the chosen ones, then the rejected ones."""
    batch = completion_batch(sequences)
    rows = len(sequences) // 2 if kind == "pairs" else columns.pop("rows", len(sequences))
    return TokenBatch(
        kind=kind,  # type: ignore[arg-type]
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        completion_mask=batch.completion_mask,
        rows=torch.arange(rows),
        **columns,
    )


def pairs(sizes: list[tuple[int, int, int]], *, seed: int = 0) -> TokenBatch:
    """Pairs of (prompt, chosen, rejected) tokens with one prompt each."""
    batch = token_batch([(p, c) for p, c, _ in sizes] + [(p, r) for p, _, r in sizes], seed=seed)
    ids = batch.input_ids.clone()
    for i, (prompt, _, _) in enumerate(sizes):
        ids[len(sizes) + i, :prompt] = ids[i, :prompt]
    return replace(batch, input_ids=ids)


def random_batch(seed: int) -> TokenBatch:
    """Prompts of 1 to 12 tokens that often stand in several rows, completions of 1 to 9 over few different tokens."""
    draw = random.Random(seed)
    prompts = [[draw.randrange(6, 20) for _ in range(draw.randrange(1, 13))] for _ in range(3)]
    pairs = [draw.choice(prompts) for _ in range(draw.randrange(1, 5))]
    answers = [[draw.randrange(6, 9) for _ in range(draw.randrange(1, 10))] for _ in range(2 * len(pairs))]
    return batch_of([(prompt, answer) for prompt, answer in zip([*pairs, *pairs], answers, strict=True)], "pairs")
