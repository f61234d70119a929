"""The attention of a packed pass, in transformers' models.

A model is switched once to an attention that wraps its own. Where a pass brings a `PackedPass` among its keyword
arguments, one of the backends computes it; every other pass, such as sampling or a padded one, goes to the model's own
function and is what it was, bit for bit. The argument and not a switch says which: with activation checkpointing a
layer runs again in backward, long after a switch was turned back, but with the arguments that it had.

Legend: F = flat positions, Hq = query heads, Hk = key and value heads, D = head size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nashtune.interfaces.layout import Packed
from nashtune.logprobs.attention_segments import segment_attention
from nashtune.logprobs.masks import install

Backend = Literal["rows", "segments", "flex", "varlen"]
PREFIX = "nashtune_packed_"
WRAPPED = ("sdpa", "eager")
HALF = (torch.float16, torch.bfloat16)


class PackedPass:
    """One pass over a packed batch: what its layers share.

    Args:
        packed: On the device that the pass runs on.
        backend: Which one computes it; None chooses by device and dtype.

    Attributes:
        windows: Sliding window that each call of the attention brought, None for full attention; what a probe reads.
        kept: What a backend made once for all layers (masks), by what it depends on.
    """

    def __init__(self, packed: Packed, backend: Backend | None = None) -> None:
        self.packed = packed
        self.backend = backend
        self.windows: list[int | None] = []
        self.kept: dict[Any, Any] = {}
        self.shares = any(segment.prefix_length for segment in packed.segments)
        self.longest = max((s.prefix_length + s.length for s in packed.segments), default=0)

    def binding(self, window: int | None) -> int | None:
        """The window, where a sequence of the batch is longer than it."""
        return window if window is not None and window < self.longest else None


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedPass,
    *,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """Attention within the segments of a packed batch.

    Args:
        query: (1, Hq, F, D).
        key: (1, Hk, F, D), Hk a divisor of Hq.
        value: (1, Hk, F, D).
        packed: Segments, and what the pass keeps.
        scaling: Factor on the scores; None for D ** -0.5.
        sliding_window: A query sees so many keys, itself included; None for all.
        softcap: Scores are softcap * tanh(score / softcap); None for none.
        dropout: On the attention's weights.

    Returns:
        (1, F, Hq, D), contiguous.
    """
    device = query.device.type
    dtype = query.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:  # as transformers' own functions get it
        dtype = torch.get_autocast_dtype(device)
    packed.windows.append(sliding_window)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = packed.binding(sliding_window)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    backend = packed.backend or _choose(query, packed, softcap=softcap, dropout=dropout)
    if backend == "rows":
        from nashtune.logprobs.attention_rows import row_attention

        return row_attention(query, key, value, packed, scale=scale, window=window, softcap=softcap)
    if backend == "flex":
        from nashtune.logprobs.flex import flex_attention

        return flex_attention(query, key, value, packed, scale=scale, window=window, softcap=softcap)
    if backend == "varlen":
        from nashtune.logprobs.attention_varlen import varlen_attention

        return varlen_attention(query, key, value, packed, scale=scale, window=window)
    return segment_attention(query, key, value, packed, scale=scale, window=window, softcap=softcap, dropout=dropout)


def _choose(query: Tensor, packed: PackedPass, *, softcap: float | None, dropout: float) -> Backend:
    if dropout > 0:
        return "segments"
    if query.device.type == "cpu":
        return "rows"
    if query.device.type != "cuda" or query.dtype == torch.float64:
        return "segments"
    if not packed.shares and softcap is None and query.dtype in HALF:
        from nashtune.logprobs.attention_varlen import available

        if available(query):
            return "varlen"
    from nashtune.logprobs.flex import available as flex_available

    return "flex" if flex_available() else "segments"


def switch(trunk: Any) -> None:
    """Let a transformers model run packed passes; its other passes stay what they are. A second call does nothing.

    Args:
        trunk: A transformers model whose attention is among `WRAPPED`.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    original = trunk.config._attn_implementation
    if original.startswith(PREFIX):
        return
    name = PREFIX + original
    install()
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _wrapper(original))
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[original])
    trunk.set_attn_implementation(name)


def _wrapper(original: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        packed: PackedPass | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if packed is None:
            found: tuple[Tensor, Tensor | None] = _own(original, module)(
                module, query, key, value, attention_mask, **kwargs
            )
            return found
        out = packed_attention(
            query,
            key,
            value,
            packed,
            scaling=kwargs.get("scaling"),
            sliding_window=kwargs.get("sliding_window"),
            softcap=kwargs.get("softcap"),
            dropout=kwargs.get("dropout", 0.0),
        )
        return out, None

    return attend


def _own(original: str, module: nn.Module) -> Callable[..., Any]:
    """The model's own function: `eager` is one of its modelling file, everything else is registered."""
    if original == "eager":
        own: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
        return own
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    registered: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS[original]
    return registered
