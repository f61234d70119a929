"""What data-parallel processes tell each other. Without torch.distributed everything here is about one process.

Every function but `rank`, `world`, `share` and `of_this_rank` is collective: all ranks call it, in the same order, or
all of them wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from nashtune.errors import InputError

T = TypeVar("T")


def world() -> int:
    """Number of data-parallel processes; 1 where there is one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def everyone(value: Any) -> list[Any]:
    """The value of every rank, in order, on every rank; whatever can be pickled."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value, group=_host_group())
    return values


def most(value: int) -> int:
    """The largest of the ranks' numbers; no device waits for it."""
    if not dist.is_initialized():
        return value
    number = torch.tensor(value)
    dist.all_reduce(number, dist.ReduceOp.MAX, group=_host_group())
    return int(number)


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of the ranks' tensors, as a new tensor; not Lightning's `reduce`, whose barrier waits for the device."""
    if not dist.is_initialized():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world()


def share(items: Sequence[T]) -> list[T]:
    """This rank's items: every `world()`-th, from number `rank()` on. Perhaps none."""
    return list(items[rank() :: world()])


def of_this_rank(unit: str) -> str:
    """What a line that counts this rank's share counts: "completions", with other ranks "completions of rank 0"."""
    return unit if world() == 1 else f"{unit} of rank {rank()}"


@contextmanager
def together(doing: str) -> Iterator[None]:
    """Work that each rank does for itself; at its end all wait for all, and where one failed all stop.

    Without this, the others would wait for a failed rank in their next collective call until it times out. Not to be
    nested: a rank that fails would tell it twice.

    Args:
        doing: What it is, for the message.

    Raises:
        InputError: on the other ranks, naming the first that failed and its message.
    """
    try:
        yield
    except Exception as error:
        if world() > 1:
            everyone(f"{error}")
        raise
    for other, message in enumerate(everyone(None)):
        if message is not None:
            raise InputError(f"{doing}: rank {other} of {world()} failed: {message}")


@lru_cache(maxsize=1)
def _host_group() -> Any:
    """A group over the processor's network: NCCL would need a device for every message."""
    if dist.get_backend() == "gloo":
        return None
    asked = dist.group.WORLD._get_backend(torch.device("cuda")).options._timeout  # type: ignore[union-attr]  # torch has no public way to ask
    return dist.new_group(backend="gloo", timeout=asked)
