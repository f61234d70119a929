"""Packed attention by torch's fused attention, one call a segment: for any device.

Legend: F = flat positions, Hq = query heads, Hk = key and value heads, S = keys that a segment may see, D = head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nashtune.interfaces.layout import Segment

if TYPE_CHECKING:
    from nashtune.logprobs.attention import PackedPass


def segment_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedPass,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """As `packed_attention`.

    A segment without a prefix is plain causal attention; one behind a prefix gets a mask, made once for all layers.
    """
    segments = packed.packed.segments
    sizes = [segment.length for segment in segments]
    # one split instead of many slices: each slice's gradient would be as large as the whole sequence
    queries, keys, values = (torch.split(part, sizes, dim=2) for part in (query, key, value))
    where = {segment.start: i for i, segment in enumerate(segments)}
    found = []
    for i, segment in enumerate(segments):
        seen = [keys[i], values[i]]
        if segment.prefix_length:
            head = where[segment.prefix_start]
            seen = [torch.cat([part[head][:, :, : segment.prefix_length], part[i]], dim=2) for part in (keys, values)]
        found.append(
            _attend(queries[i], seen[0], seen[1], _mask(segment, window, packed, query.device), scale, softcap, dropout)
        )
    return torch.cat(found, dim=2).transpose(1, 2).contiguous()


def _mask(segment: Segment, window: int | None, packed: PackedPass, device: torch.device) -> Tensor | None:
    """True where a query may look (queries, S); None for plain causal attention."""
    length, prefix = segment.length, segment.prefix_length
    if prefix == 0 and (window is None or length <= window):
        return None
    name = ("mask", length, prefix, window)
    if name not in packed.kept:
        ahead = torch.arange(prefix, prefix + length, device=device)[:, None] - torch.arange(
            prefix + length, device=device
        )
        packed.kept[name] = (ahead >= 0) if window is None else (ahead >= 0) & (ahead < window)
    mask: Tensor = packed.kept[name]
    return mask


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if softcap is None and (mask is None or groups == 1 or query.device.type == "cpu"):
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale,
            enable_gqa=groups > 1,
        )  # fmt: skip
    # with a mask, the fast kernels of a GPU know no groups of query heads
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if softcap is None:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale
        )
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = torch.tanh(query @ key.transpose(2, 3) * (scale / softcap)) * softcap
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill(~mask, float("-inf"))
    weights = nn.functional.dropout(scores.softmax(-1).to(value.dtype), p=dropout)
    return weights @ value
