"""Packed attention on a CPU: plain matrix products over blocks of query rows, with a backward pass of its own.

Own code because it was measured: torch's fused attention on a CPU takes the same time in bfloat16 as in float32, and
slices of keys and values would each get a gradient as large as the segment. Under autocast a step of a small Llama is
a tenth faster than by `segments`. Scores of a block are computed again in backward instead of kept.

Scores are products in float32 in any case: rounded to bfloat16 they would be wrong by up to 0.5 where a bias on the
keys makes them 100 and more. The other products are in the dtype of the query.

Legend: F = flat positions, Hq = query heads, Hk = key and value heads, G = Hq / Hk, R = rows of a block,
S = keys that a block may see, D = head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nashtune.interfaces.layout import Segment

if TYPE_CHECKING:
    from nashtune.logprobs.attention import PackedPass

ROWS = 128


@dataclass(frozen=True)
class _Settings:
    scale: float
    window: int | None
    softcap: float | None


@dataclass(frozen=True)
class _Block:
    """Query rows [start, start + rows) of a segment: they see `prefix` keys before it and `own` keys of it."""

    start: int
    rows: int
    prefix: int
    own: int

    @property
    def keys(self) -> int:
        return self.prefix + self.own


def row_attention(
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
    settings = _Settings(scale=scale, window=window, softcap=softcap)
    out: Tensor = _Rows.apply(query, key, value, packed, settings)  # type: ignore[no-untyped-call]
    return out


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, packed: PackedPass, settings: _Settings) -> Tensor:
        _, heads, length, _ = query.shape
        wide = torch.promote_types(query.dtype, torch.float32)
        out = query.new_empty(1, length, heads, value.shape[-1])
        for segment in packed.packed.segments:
            keys, values = _seen(key, segment).to(wide), _seen(value, segment)
            for block in _blocks(segment):
                span = slice(block.start, block.start + block.rows)
                rows = _rows(query[0, :, span], key.shape[1])
                weights, _ = _weights(rows, keys[:, : block.keys], block, settings, packed)
                found = torch.bmm(weights.to(values.dtype), values[:, : block.keys])
                out[0, span] = found.view(heads, block.rows, -1).transpose(0, 1)
        ctx.save_for_backward(query, key, value, out)
        ctx.packed, ctx.settings = packed, settings
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out = ctx.saved_tensors
        settings, heads, groups = ctx.settings, query.shape[1], key.shape[1]
        wide = torch.promote_types(query.dtype, torch.float32)  # of scores, and of sums over blocks
        # of keys and values in the wide dtype: a shared prefix gets a part from each of its branches
        dtypes = (query.dtype, wide, wide)
        grads = [
            part.new_zeros(part.shape[2], part.shape[1], part.shape[3], dtype=dtype).transpose(0, 1)
            for part, dtype in zip((query, key, value), dtypes, strict=True)
        ]
        for segment in ctx.packed.packed.segments:
            keys, values = _seen(key, segment), _seen(value, segment)
            wide_keys = keys.to(wide)
            grad_keys, grad_values = torch.zeros_like(wide_keys), torch.zeros_like(values, dtype=wide)
            for block in _blocks(segment):
                span, seen = slice(block.start, block.start + block.rows), slice(0, block.keys)
                rows = _rows(query[0, :, span], groups)
                weights, bend = _weights(rows, wide_keys[:, seen], block, settings, ctx.packed)
                got = grad_out[0, span].transpose(0, 1)
                along = (got.to(wide) * out[0, span].transpose(0, 1)).sum(-1).reshape(groups, -1, 1)
                got = _rows(got, groups)
                grad_values[:, seen] += torch.bmm(weights.to(got.dtype).transpose(1, 2), got)
                slope = torch.bmm(got, values[:, seen].transpose(1, 2)).to(weights.dtype)
                slope.sub_(along).mul_(weights)
                if bend is not None:
                    slope.mul_(bend)
                slope = slope.to(keys.dtype)
                grads[0][:, span] = torch.bmm(slope, keys[:, seen]).mul_(settings.scale).view(heads, block.rows, -1)
                grad_keys[:, seen] += torch.bmm(slope.transpose(1, 2), rows)
            _give_back(grads[1], grad_keys.mul_(settings.scale), segment)
            _give_back(grads[2], grad_values, segment)
        return grads[0][None], grads[1][None].to(key.dtype), grads[2][None].to(value.dtype), None, None


def _blocks(segment: Segment) -> Iterator[_Block]:
    for start in range(0, segment.length, ROWS):
        rows = min(ROWS, segment.length - start)
        yield _Block(segment.start + start, rows, segment.prefix_length, start + rows)


def _seen(part: Tensor, segment: Segment) -> Tensor:
    """Keys or values (Hk, prefix + own, D), contiguous: one copy that all blocks of the segment read."""
    own = part[0, :, segment.start : segment.start + segment.length]
    if not segment.prefix_length:
        return own.contiguous()
    return torch.cat([part[0, :, segment.prefix_start : segment.prefix_start + segment.prefix_length], own], dim=1)


def _give_back(grad: Tensor, found: Tensor, segment: Segment) -> None:
    prefix = segment.prefix_length
    if prefix:
        grad[:, segment.prefix_start : segment.prefix_start + prefix] += found[:, :prefix]
    grad[:, segment.start : segment.start + segment.length] += found[:, prefix:]


def _rows(part: Tensor, groups: int) -> Tensor:
    """(Hq, R, D) as (Hk, G * R, D): query heads that read the same keys stand below each other."""
    return part.reshape(groups, -1, part.shape[-1])


def _weights(
    rows: Tensor, keys: Tensor, block: _Block, settings: _Settings, packed: PackedPass
) -> tuple[Tensor, Tensor | None]:
    """Softmax of the scores (Hk, G * R, S), in the keys' dtype; with a soft cap also its derivative."""
    scores = torch.bmm(rows.to(keys.dtype) * settings.scale, keys.transpose(1, 2))
    bend = None
    if settings.softcap is not None:
        bent = scores.div_(settings.softcap).tanh_()
        bend = 1 - bent.square()
        scores = bent.mul_(settings.softcap)
    by_row = scores.view(scores.shape[0], -1, block.rows, block.keys)
    _hide(by_row, block, settings.window, packed)
    return scores.softmax(-1), bend


def _hide(scores: Tensor, block: _Block, window: int | None, packed: PackedPass) -> None:
    """-inf on keys that come after the query, in place, or too far before it."""
    name = ("rows", block.rows, scores.dtype)
    if name not in packed.kept:
        full = torch.full((block.rows, block.rows), float("-inf"), dtype=scores.dtype)
        packed.kept[name] = full.triu_(1)
    scores[..., block.keys - block.rows :] += packed.kept[name]
    if window is not None:
        queries = torch.arange(block.keys - block.rows, block.keys)
        far = queries[:, None] - torch.arange(block.keys)[None, :] >= window
        scores.masked_fill_(far, float("-inf"))
