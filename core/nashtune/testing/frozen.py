"""Holds what a loss detaches: recorded in a first evaluation, and given again in those that follow.

A stop-gradient says that a number is held constant in the derivative. Differences of the values see it move, so that
they agree with the gradient only where it is held in them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class OtherPath(Exception):
    """An evaluation went another way than the one that was recorded."""


class Frozen:
    """What was detached, in the order in which it was.

    Whatever an operation makes without a gradient of tensors that have one counts: `detach`, `data`, everything under
    `torch.no_grad()`, and numbers that leave torch (`item`, `float`, `tolist`).
    """

    def __init__(self) -> None:
        self._kept: list[tuple[str, Any]] | None = None

    def held(self, evaluate: Callable[[], Any]) -> Any:
        """Evaluate: the first time recorded, from then on with what was recorded.

        Raises:
            OtherPath: it detaches other things than it did the first time.
        """
        mode = _Hold(self._kept)
        with mode:
            found = evaluate()
        if self._kept is None:
            self._kept = mode.found
        elif mode.at != len(self._kept):
            raise OtherPath(f"it detaches {mode.at} things, and at a point beside it {len(self._kept)}")
        return found


class _Hold(TorchFunctionMode):
    """Records what is detached, or puts what was recorded in its place."""

    def __init__(self, kept: list[tuple[str, Any]] | None) -> None:
        super().__init__()
        self.kept, self.found, self.at = kept, list[tuple[str, Any]](), 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        live = any(one.requires_grad for one in _tensors((*args, *kwargs.values())))
        out = func(*args, **kwargs)
        if not live or not _detached(out):
            return out
        name = getattr(func, "__name__", str(func))
        if self.kept is None:
            self.found.append((name, out.detach().clone() if isinstance(out, Tensor) else out))
            return out
        if self.at >= len(self.kept) or self.kept[self.at][0] != name:
            raise OtherPath(f"it detaches by `{name}` what it did not at a point beside it")
        value = self.kept[self.at][1]
        self.at += 1
        if not isinstance(out, Tensor):
            return value
        if value.shape != out.shape:
            raise OtherPath(f"it detaches {tuple(out.shape)} numbers, and at a point beside it {tuple(value.shape)}")
        if any(out is one for one in args):  # in place: who holds the tensor reads it there
            with torch.no_grad():
                return out.copy_(value)
        return value.clone()


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _detached(out: Any) -> bool:
    """Whether it is made of fractions and has no gradient."""
    if isinstance(out, Tensor):
        return out.is_floating_point() and not out.requires_grad
    if isinstance(out, list):
        return bool(out) and all(_detached(one) for one in out)
    return isinstance(out, float)
