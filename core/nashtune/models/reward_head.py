"""The score head: one linear layer on the last token's hidden state, K outputs, always in float32.

Legend: N = sequences, T = positions, H = hidden size, K = members.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nashtune.errors import InputError
from nashtune.logprobs.head import accumulation_dtype, base_model
from nashtune.sharding.tensors import is_sharded

NAME = "score"
"""What transformers calls the head of a decoder's sequence classifier."""


def require_head(model: Any, option: str) -> nn.Linear:
    """The linear layer behind a sequence classifier's trunk.

    Raises:
        InputError: the classifier has no such layer, or reads more than the last token with it.
    """
    layer = getattr(model, NAME, None)
    if not isinstance(layer, nn.Linear):
        raise InputError(
            f"{option}: {type(model).__name__} has no linear layer `{NAME}` on its last token; reward models are "
            "trained on decoders such as Llama, Qwen, Mistral or Gemma"
        )
    return layer


def new_head(
    members: int, hidden: int, *, init: Literal["scaled", "config"], initializer_range: float, seed: int
) -> Tensor:
    """Weights (K, H) of a head that has learned nothing, float32.

    Each member is drawn by a generator of its own, so member k is the same whatever K is, and whatever else has drawn
    random numbers before.

    Args:
        members: K.
        hidden: H.
        init: "scaled": standard deviation 1/sqrt(H + 1); "config": `initializer_range`.
        initializer_range: Of the model's configuration.
        seed: Of the run, `torch.initial_seed()`.
    """
    std = (hidden + 1) ** -0.5 if init == "scaled" else initializer_range
    rows = [std * torch.randn(hidden, generator=_generator(seed, member)) for member in range(members)]
    return torch.stack(rows)


def _generator(seed: int, member: int) -> torch.Generator:
    digest = blake2b(f"score head {seed} {member}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def set_head(model: Any, weight_KH: Tensor) -> None:
    """Give a sequence classifier a head with these weights, in float32, and as many outputs in its config."""
    old = getattr(model, NAME)
    outputs, size = weight_KH.shape
    # on `meta`, so that no random numbers are drawn
    layer = nn.Linear(size, outputs, bias=old.bias is not None, dtype=torch.float32, device="meta")
    layer = layer.to_empty(device=old.weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight_KH)
        if layer.bias is not None:
            layer.bias.zero_()
    setattr(model, NAME, layer)
    model.config.num_labels = model.num_labels = outputs


def active_head(model: nn.Module) -> nn.Linear:
    """The head that computes: with LoRA the trained copy, or the original where the adapter is switched off."""
    layer: Any = getattr(base_model(model), NAME)
    if hasattr(layer, "modules_to_save") and hasattr(layer, "original_module"):
        active = layer.active_adapters[0] if layer.active_adapters else None
        layer = layer.original_module if layer.disable_adapters or active is None else layer.modules_to_save[active]
    assert isinstance(layer, nn.Linear)
    return layer


def scores(model: nn.Module, last_NH: Tensor) -> Tensor:
    """Scores of every sequence by every member (N, K), float32 (float64 for a float64 model), with gradient."""
    head: Any = active_head(model)
    weight, bias = head.read() if is_sharded(head) else (head.weight, head.bias)
    dtype = accumulation_dtype(last_NH.dtype)
    with torch.autocast(last_NH.device.type, enabled=False):
        return nn.functional.linear(last_NH.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
