"""What a padded batch is to a transformers model."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from nashtune.interfaces.batch import TokenBatch


def model_inputs(model: nn.Module, batch: TokenBatch) -> dict[str, Any]:
    """Keyword arguments of a forward pass: no cache, position ids from the mask where the model takes them."""
    inputs: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        # with a cache, sdpa would attend across packed sequences without a word
        "use_cache": False,
    }
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = (batch.attention_mask.long().cumsum(1) - 1).clamp_min(0)
    return inputs
