"""Attention masks of padded batches, without asking the device whether a batch has padding.

transformers leaves the mask out where there is no padding, and reads it to find out: the host would wait in every pass
of every model. Whoever planned the batch has counted its tokens. With that, its own function makes the same mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nashtune.interfaces.layout import Layout

_padding: bool | None = None  # of the pass in progress; no ContextVar, which torch.compile does not look through


@contextmanager
def counted_padding(at: Layout) -> Iterator[None]:
    """Inside, models whose attention is `sdpa` make their masks by what was counted; others as they always do.

    Args:
        at: Of the padded batch that the models run on.
    """
    global _padding
    install()
    before, _padding = _padding, at.positions > at.tokens
    try:
        yield
    finally:
        _padding = before


def install() -> None:
    """Put our function before transformers' own, which it calls; outside of `counted_padding` nothing changes."""
    from transformers import AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    if ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is not _sdpa_mask:
        AttentionMaskInterface.register("sdpa", _sdpa_mask)


def _sdpa_mask(*args: Any, attention_mask: Any = None, **options: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    if attention_mask is not None and _padding is not None:
        if _padding:
            options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        else:
            attention_mask = None
    return sdpa_mask(*args, attention_mask=attention_mask, **options)
