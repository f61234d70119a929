"""Packed attention by the flash kernel for sequences of different lengths: CUDA, 16 bits, where no prefix is shared.

Legend: F = flat positions, Hq = query heads, Hk = key and value heads, D = head size.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from nashtune.logprobs.attention import PackedPass


def available(query: Tensor) -> bool:
    """Whether this torch has the kernel and it takes such heads on this GPU."""
    if find_spec("torch.nn.attention.varlen") is None or query.shape[-1] > 256 or query.shape[-1] % 8:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, packed: PackedPass, *, scale: float, window: int | None
) -> Tensor:
    """As `packed_attention`, without soft cap and dropout."""
    from torch.nn.attention.varlen import varlen_attn

    segments = packed.packed.segments
    if "starts" not in packed.kept:
        # without shared prefixes each segment is a group, and groups are numbered in order; nothing is copied from the
        # host and no size is asked of the device
        numbers = torch.arange(len(segments) + 1, dtype=torch.int32, device=query.device)
        packed.kept["starts"] = torch.searchsorted(packed.packed.group, numbers, out_int32=True)
    starts = packed.kept["starts"]
    found = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        starts,
        starts,
        packed.longest,
        packed.longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),  # keys before the query, and behind it
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(found, Tensor)
    return found[None]
