"""Packed attention by FlexAttention: one kernel over the flat sequence, which skips blocks where nothing may be seen.

For CUDA; there it is compiled once with dynamic shapes, because each batch has another length. On a CPU its forward
pass runs uncompiled, which is enough to test the mask; it has no backward pass there.

Legend: F = flat positions, Hq = query heads, Hk = key and value heads, D = head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nashtune.interfaces.layout import Packed

if TYPE_CHECKING:
    from nashtune.logprobs.attention import PackedPass


def available() -> bool:
    """Whether torch can compile kernels for the GPU."""
    return find_spec("triton") is not None


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedPass,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """As `packed_attention`, without dropout."""
    attend, make_mask = _functions(query.device.type)
    name = ("flex", window)
    if name not in packed.kept:
        length = query.shape[2]
        packed.kept[name] = make_mask(visible(packed.packed, window), None, None, length, length, query.device)
    out: Tensor = attend(
        query,
        key,
        value,
        score_mod=None if softcap is None else _capped(softcap),
        block_mask=packed.kept[name],
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2).contiguous()


def visible(packed: Packed, window: int | None) -> Callable[[Any, Any, Tensor, Tensor], Tensor]:
    """Whether query q sees key k: not after it, in its own branch or in the prefix, and within the window."""
    group, branch, prefix, position = packed.group, packed.branch, packed.prefix, packed.position_ids[0]

    def see(_batch: Any, _head: Any, q: Tensor, k: Tensor) -> Tensor:
        own = branch[q] == branch[k]
        shared = (branch[k] == 0) & (position[k] < prefix[q])
        seen = (group[q] == group[k]) & (position[k] <= position[q]) & (own | shared)
        return seen if window is None else seen & (position[q] - position[k] < window)

    return see


@cache
def _functions(device: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    from torch.nn.attention import flex_attention as flex

    if device == "cpu":
        return flex.flex_attention, flex.create_block_mask
    return torch.compile(flex.flex_attention, dynamic=True), torch.compile(flex.create_block_mask, dynamic=True)


@cache
def _capped(softcap: float) -> Callable[..., Tensor]:
    def cap(score: Tensor, _batch: Any, _head: Any, _q: Any, _k: Any) -> Tensor:
        return torch.tanh(score / softcap) * softcap

    return cap
