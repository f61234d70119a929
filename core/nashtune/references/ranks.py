"""What data-parallel processes tell each other."""

from __future__ import annotations

from typing import Any

import torch


def world() -> int:
    """Number of data-parallel processes; 1 where there is one."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def everyone(value: Any) -> list[Any]:
    """The value of every rank, in order, on every rank; whatever can be pickled."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * world()
    torch.distributed.all_gather_object(values, value)
    return values
