"""What a weight is to this rank and to all of them. Everything here takes tensors that are not cut up, too."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from nashtune.ranks import most

__all__ = ["DTensor", "copy_full", "full", "gather", "is_sharded", "local", "overlaps", "piece", "rest", "same_for_all"]


def is_sharded(model: nn.Module) -> bool:
    """Whether some part of a model is cut up over the ranks, so that all of them must run it together."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def local(tensor: Tensor) -> Tensor:
    """This rank's piece, sharing memory with the whole; perhaps empty."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def overlaps(tensor: Tensor) -> bool:
    """Whether numbers of a tensor may share one place in memory, as those of an expanded one do."""
    own, reach = local(tensor), 1
    for stride, size in sorted(zip(own.stride(), own.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return own.numel() > 0
            reach = stride * size
    return False


def full(tensor: Tensor) -> Tensor:
    """The whole tensor, on every rank. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def piece(like: Tensor, whole: Tensor) -> Tensor:
    """A tensor cut up as another one is, from the whole, which every rank has. Nothing is sent.

    Args:
        like: The one whose pieces lie where they should; plain gives `whole` back.
        whole: Of the same shape, anywhere, or cut up as it should be already. Of a file that is mapped into memory,
            this rank's piece alone is read.
    """
    if not isinstance(like, DTensor) or isinstance(whole, DTensor):
        return whole
    mesh, (placement,) = like.device_mesh, like.placements
    parts = whole.chunk(mesh.size(), cast(Any, placement).dim)
    own = parts[mesh.get_local_rank()] if mesh.get_local_rank() < len(parts) else parts[0][:0]
    own = own.to(like.device, copy=True).contiguous()
    return DTensor.from_local(own, mesh, like.placements, run_check=False, shape=whole.shape, stride=whole.stride())


@torch.no_grad()
def copy_full(weight: Tensor, whole: Tensor) -> None:
    """Write the whole of a weight, which every rank has, into this rank's piece of it."""
    local(weight).copy_(local(piece(weight, whole)))


def gather(module: nn.Module) -> None:
    """Have a module's own weights at hand before they are read without a forward pass. Collective where cut up."""
    if isinstance(module, FSDPModule):
        module.unshard()


def rest(model: nn.Module) -> None:
    """Let go of gathered weights: what the model names as its parameters is what is trained, and up to date."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def same_for_all(model: nn.Module, passes: int) -> int:
    """Passes that this rank must run through a model so that no other one waits for it: the most of all ranks.

    Args:
        model: Not cut up: every rank runs its own number.
        passes: That this rank has work for. Collective where the model is cut up.
    """
    return most(passes) if is_sharded(model) else passes
