"""Rows of unequal length in batches of a token budget, and as one padded tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor


def budget_batches(rows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of the rows in batches of similar length, each of at most `batch_tokens` tokens with its padding.

    A row longer than the budget is a batch of its own. The order depends on the rows' content alone, so the same set of
    rows always meets in the same batches.
    """
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (-len(rows[i]), rows[i])):
        if batch and (len(batch) + 1) * len(rows[batch[0]]) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], pad: int, side: Literal["left", "right"]) -> tuple[Tensor, Tensor]:
    """Token ids (N, T) and attention mask (N, T) of rows of unequal lengths."""
    width = max(map(len, rows))
    ids_NT = torch.full((len(rows), width), pad)
    mask_NT = torch.zeros_like(ids_NT)
    for row_T, mask_T, ids in zip(ids_NT, mask_NT, rows, strict=True):
        place = slice(width - len(ids), width) if side == "left" else slice(0, len(ids))
        row_T[place] = torch.tensor(ids)
        mask_T[place] = 1
    return ids_NT, mask_NT
