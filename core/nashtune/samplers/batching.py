"""Prompts of many lengths become batches: by token budget, padded on the left.

Legend: R = rows of a batch, T = positions of the padded prompts.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.logprobs.head import base_model


def numbers_of(prompts: Sequence[Sequence[int]], indices: Sequence[int] | None) -> Sequence[int]:
    """The prompts' numbers in the whole prompt set, as `Sampler.sample` takes them: `indices`, or 0, 1, ...

    Raises:
        ValueError: there are not as many indices as prompts.
    """
    if indices is None:
        return range(len(prompts))
    if len(indices) != len(prompts):
        raise ValueError(f"{len(indices)} indices for {len(prompts)} prompts")
    return indices


def check_fits(prompts: Sequence[Sequence[int]], numbers: Sequence[int], new_tokens: int, context: int | None) -> None:
    """Refuse prompts that nothing can be drawn behind.

    Args:
        prompts: Token ids.
        numbers: Of the prompts, for messages.
        new_tokens: That each may add (`max_new_tokens`).
        context: Positions that the model has; None where it has no limit.

    Raises:
        InputError: a prompt is empty, or does not fit into the context with `new_tokens`.
    """
    for number, prompt in zip(numbers, prompts, strict=True):
        if not prompt:
            raise InputError(f"sampler: prompt {number} has no token")
        if context is not None and len(prompt) + new_tokens > context:
            raise InputError(
                f"sampler: prompt {number} has {len(prompt)} tokens, which with max_new_tokens={new_tokens} exceeds "
                f"the model's context of {context}; shorten the prompt or lower max_new_tokens"
            )


def batches(lengths: Sequence[int], new_tokens: int, budget: int) -> Iterator[list[int]]:
    """Batches of requests, longest first, so that what needs most memory comes at once and neighbours are alike.

    Args:
        lengths: Prompt tokens of each request.
        new_tokens: Tokens that each may add.
        budget: Rows times (longest prompt + new tokens) stays within it; a batch has at least one row.

    Yields:
        Places in `lengths`; each occurs once.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    start = 0
    while start < len(order):
        rows = max(1, budget // (lengths[order[start]] + new_tokens))
        yield order[start : start + rows]
        start += rows


def compacted(alive: Sequence[int]) -> list[int]:
    """Which slot each of the first `len(alive)` slots is filled from, when only `alive` ones (ascending) go on.

    A slot that goes on and lies among the first stays where it is; the others fill the gaps.
    """
    order = list(range(len(alive)))
    gaps = sorted(set(order).difference(alive))
    for gap, source in zip(gaps, (slot for slot in alive if slot >= len(alive)), strict=True):
        order[gap] = source
    return order


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (R, T) with `pad` before the shorter prompts, and a mask (R, T) that is 0 on it."""
    width = max(map(len, prompts))
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def positions(model: Any, mask_RT: Tensor) -> dict[str, Tensor]:
    """Position ids where the model takes them: a left-padded prompt still begins at position 0."""
    if "position_ids" not in inspect.signature(base_model(model).forward).parameters:
        return {}
    return {"position_ids": (mask_RT.cumsum(-1) - 1).clamp_min(0)}
