"""A plain copy of a model that is cut up, for what ranks do at their own pace: sampling, scoring, export."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from nashtune.errors import InputError
from nashtune.ranks import everyone
from nashtune.sharding.tensors import full, rest

GIB = 2**30


class Skeleton:
    """The modules of a model without its weights, kept from before it was cut up: FSDP modules cannot be copied.

    Args:
        model: Not cut up yet; it may have no weights.
    """

    def __init__(self, model: nn.Module) -> None:
        empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
        self._model = copy.deepcopy(model, dict(empty))

    def filled(self, model: nn.Module, device: torch.device) -> Any:
        """A model of plain tensors with the weights, buffers and mode of one that is cut up. Collective.

        Args:
            model: What the skeleton is of.
            device: Where to.
        """
        rest(model)
        live = dict(model.named_parameters())
        weights: dict[int, Any] = {}
        for name, empty in self._model.named_parameters():
            whole = full(live[name].detach()).to(device, copy=True)
            weights[id(empty)] = nn.Parameter(whole, requires_grad=live[name].requires_grad)
        found = copy.deepcopy(self._model, weights)
        buffers = dict(model.named_buffers())
        modes = {name: module.training for name, module in model.named_modules()}
        for name, module in found.named_modules():
            module.training = modes[name]
            for key in module._buffers:
                if module._buffers[key] is not None:
                    module._buffers[key] = buffers[f"{name}.{key}" if name else key].to(device, copy=True)
        return found


def room_for(model: nn.Module, device: torch.device, *, or_cpu: bool, later: int = 0) -> torch.device:
    """Where a whole copy of a model goes: onto the device, if every rank's has room. Collective.

    Args:
        model: That is cut up.
        device: Of this rank.
        or_cpu: Else into main memory.
        later: Bytes that this rank's device must keep for what is not there yet.

    Raises:
        InputError: there is no room.
    """
    if device.type != "cuda":
        return device
    torch.cuda.empty_cache()
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    free = min(everyone(torch.cuda.mem_get_info(device)[0] - later))
    if needed < 0.9 * free:  # the largest weight lies there twice for a moment
        return device
    if or_cpu:
        return torch.device("cpu")
    beside = " beside the optimiser's state that is to come" if later else ""
    raise InputError(
        f"trainer.strategy fsdp2: a whole copy of the model for sampling takes {needed / GIB:.1f} GiB and a device has "
        f"{max(free, 0) / GIB:.1f} left{beside}; sample on a vLLM server, and leave the held-out answers out "
        "(--samples.prompts 0)"
    )
