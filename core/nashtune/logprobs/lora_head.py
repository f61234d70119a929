"""LoRA on the LM head, as factors: the merged weight never exists.

logits = hidden @ weight.T + low @ up.T with low = scaling * dropout(hidden) @ A.T and up = B. The engine reads this as
one product of `[hidden, low]` and `[weight, up]`, tile by tile, and autograd takes the gradient of `low` on to A.

Legend: M = tokens, H = hidden size, V = vocabulary, r = rank of one adapter, R = ranks of all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nashtune.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """One active adapter of the head.

    Args:
        down: A (r, H).
        up: B (V, r).
        scaling: Factor on the update.
        dropout: On the adapter's input, while training.
        bias: Of B (V,).
    """

    down: Tensor
    up: Tensor
    scaling: float
    dropout: nn.Module
    bias: Tensor | None

    def low(self, hidden_MH: Tensor) -> Tensor:
        """The factor of the tokens (M, r), in the dtype of the hidden states."""
        inside = self.dropout(hidden_MH.to(self.down.dtype))
        return (nn.functional.linear(inside, self.down) * self.scaling).to(hidden_MH.dtype)


def split_adapters(layer: Any, refusal: str) -> tuple[Any, tuple[LowRank, ...]]:
    """The layer under a peft LoRA layer and the adapters that are on now; any other layer as it is, with none.

    Args:
        layer: A model's output layer.
        refusal: What the message ends with.

    Raises:
        InputError: the adapter is more than two factors (DoRA and its like).
    """
    if not hasattr(layer, "lora_A"):
        return layer, ()
    if layer.disable_adapters or layer.merged:  # merged: the weight already holds it
        return layer.base_layer, ()
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    for name in names:
        if name in layer.lora_variant:
            kind = type(layer.lora_variant[name]).__name__
            raise InputError(f"LoRA on the LM head as {kind} is more than two factors{refusal}")
    found = (
        LowRank(
            down=layer.lora_A[name].weight,
            up=layer.lora_B[name].weight,
            scaling=layer.scaling[name],
            dropout=layer.lora_dropout[name],
            bias=layer.lora_B[name].bias,
        )
        for name in names
    )
    return layer.base_layer, tuple(found)


def joined(parts: list[Tensor]) -> Tensor:
    """Factors side by side."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
