"""One model being decoded: the prompts' pass, then a token of every row at a time.

Legend: U = prompts, R = rows, T = positions of the padded prompts, n = positions so far, V = vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from nashtune.logprobs.head import accumulation_dtype, base_model
from nashtune.samplers.kv_cache import RowCache

Start = tuple[Any, Callable[[], AbstractContextManager[Any]]]
"""A model to call, and a context manager factory under which it is the starting policy."""


class Runner:
    """A causal LM and its cache.

    Args:
        model: To call.
        context: Under which it is called.

    Raises:
        TypeError: its cache cannot be kept row by row.
    """

    def __init__(self, model: Any, context: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        base = base_model(model)
        self._model, self._context = model, context
        self._cache = RowCache(base.config)
        self._places = "position_ids" in inspect.signature(base.forward).parameters
        # the prompts' other logits are never read, and in a large vocabulary they are what fills the memory
        self._few = {"logits_to_keep": 1} if base._supports_logits_to_keep() else {}

    def prefill(self, ids_UT: Tensor, mask_UT: Tensor) -> Tensor:
        """Logits (U, V) behind each prompt; a prompt that is padded on the left still begins at position 0."""
        return self._logits(ids_UT, mask_UT, (mask_UT.cumsum(-1) - 1).clamp_min(0))

    def spread(self, rows_R: Tensor, room: int) -> None:
        """Row r goes on behind prompt `rows_R[r]`, up to position `room`."""
        self._cache.spread(rows_R, room)

    def keep(self, order: Sequence[int], device: torch.device) -> None:
        """Row r is what was row `order[r]`."""
        self._cache.keep(order, device)

    def step(self, token_R: Tensor, mask_Rn: Tensor, position_R: Tensor) -> Tensor:
        """Logits (R, V) behind one more token of each row."""
        return self._logits(token_R[:, None], mask_Rn, position_R[:, None])

    def _logits(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        place = {"position_ids": positions} if self._places else {}
        with self._context():
            out = self._model(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=self._cache,
                use_cache=True,
                **place,
                **self._few,
            )
        logits: Tensor = out.logits[:, -1]
        return logits.to(accumulation_dtype(logits.dtype))


def mix_logits(policy: Tensor, start: Tensor, weight: float) -> Tensor:
    """Logits (1 - w) policy + w start (..., V) of the normalised policy^(1-w) start^w; added constants cancel."""
    # not one formula: 0 * -inf, where a model rules a token out, is NaN
    return policy if weight == 0 else start if weight == 1 else (1 - weight) * policy + weight * start
