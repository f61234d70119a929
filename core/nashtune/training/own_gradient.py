"""A rank's own gradient, seen before it is averaged: after that, one rank's fault is in the gradients of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


def watch_own_gradient(strategy: Strategy, see: Callable[[Tensor], None]) -> bool:
    """Have the norm of this rank's own gradient seen in each backward that is averaged, without a wait for the device.

    DDP averages copies, and puts them in the place of the gradients when the backward is over, in a callback that it
    queues when the last gradient is there. One that is queued with the first runs before it. (A communication hook in
    Python would see the copies, but runs in threads of the backend, which at a process's end is no place for Python.)

    Args:
        strategy: Set up, no step done.
        see: Gets the norm, a scalar on the device.

    Returns:
        False where nobody can see it: FSDP2 sums within the backward, as DDP does with `gradient_as_bucket_view`.
    """
    model = getattr(strategy, "model", None)
    if not isinstance(model, DistributedDataParallel) or model.gradient_as_bucket_view:
        return False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    waiting = False

    def look() -> None:
        nonlocal waiting
        waiting = False
        see(torch.nn.utils.get_total_norm([one.grad for one in trained if one.grad is not None]))

    def begin(parameter: Tensor) -> None:
        nonlocal waiting
        # the backwards of a micro-batch's earlier passes lie within DDP's forward: they are summed and not averaged
        averaged = model.require_backward_grad_sync and DistributedDataParallel._active_ddp_module is None
        if averaged and not waiting:
            waiting = True
            engine: Any = torch.autograd.Variable._execution_engine  # torch has no public way; its own FSDP queues so
            engine.queue_callback(look)

    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(begin)  # type: ignore[no-untyped-call]
    return True
