"""Linear layers on a CPU while completions are drawn: their weights in the layout that oneDNN computes with.

Decoding has a large weight meet few rows at every token, and what oneDNN does before a product, copying the weight into
its own layout, would be most of the work. Meanwhile the weights stand still, so it is done once.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

LEAST = 1 << 16  # numbers of a weight; with smaller ones starting oneDNN costs more than it saves


@cache
def available(dtype: torch.dtype) -> bool:
    """Whether this processor and this torch have oneDNN's products of a dtype. Only x86 has been measured."""
    ops = torch.ops.mkldnn
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's
        return False
    if not (hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(ops._is_mkldnn_bf16_supported()))


def product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Input (..., I) @ weight.T + bias (O,), outside of autograd, with a packed weight."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return result


@contextmanager
def packed_weights(models: Sequence[nn.Module], rows: int) -> Iterator[None]:
    """Linear layers on a CPU compute with weights in oneDNN's layout inside; nothing may change the weights there.

    Under autocast they are cast once, too. Takes the memory of the packed weights.

    Args:
        models: That are called within, without gradient and with autocast as it is now.
        rows: That a call usually has.
    """
    packed: dict[int, Tensor] = {}  # a tied weight is packed once
    changed: list[nn.Module] = []
    for module in {id(one): one for model in models for one in model.modules()}.values():
        # the exact type: a subclass may do more; and what has a `forward` of its own is wrapped by somebody
        if type(module) is not nn.Linear or "forward" in vars(module):
            continue
        dtype = _packable(module.weight)
        if dtype is not None:
            weight = module.weight.detach()
            if id(module.weight) not in packed:
                packed[id(module.weight)] = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), rows)
            module.forward = _Packed(packed[id(module.weight)], module.bias, dtype)  # type: ignore[method-assign]  # put back below
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


class _Packed:
    """What a layer's `forward` is meanwhile."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self._weight, self._dtype = weight, dtype
        self._bias = None if bias is None else bias.detach().to(dtype)

    def __call__(self, input: Tensor) -> Tensor:
        return product(input.to(self._dtype), self._weight, self._bias)


def _packable(weight: Tensor) -> torch.dtype | None:
    """The dtype that a layer computes in, where oneDNN has it and the weight is worth it."""
    if weight.device.type != "cpu" or type(weight) not in (Tensor, nn.Parameter) or weight.numel() < LEAST:
        return None
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    return dtype if available(dtype) else None
