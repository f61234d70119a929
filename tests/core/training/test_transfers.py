"""A batch on its way to a device: pinned for CUDA alone, every part of it."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nashtune.logprobs import get_engine
from nashtune.testing import token_batch
from nashtune.training.module import AlignmentModule


class Fake:
    """Says what is done to it."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def pin_memory(self) -> Fake:
        self.done.append("pinned")
        return self

    def to(self, device: torch.device, non_blocking: bool) -> Fake:
        self.done.append((device.type, non_blocking))
        return self


@pytest.mark.parametrize(
    ("device", "done"),
    [("cuda", ["pinned", ("cuda", True)]), ("mps", [("mps", True)]), ("cpu", [("cpu", False)])],
)
def test_memory_is_pinned_where_a_device_can_fetch_from_it(device: str, done: list[Any]) -> None:
    batch = Fake()
    AlignmentModule.transfer_batch_to_device(SimpleNamespace(), [batch], torch.device(device), 0)  # type: ignore
    assert batch.done == done


def test_every_tensor_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: set[int] = set()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.add(id(self)) or self)
    plain = token_batch([(3, 5), (3, 2)], seed=1)
    sums = torch.zeros(4)
    batch = replace(plain, layout=get_engine("shared").plan(plain), known={"ref": sums}, per_token={"old": sums})
    same = batch.pin_memory()
    assert same.layout is not None and same.layout.packed is not None
    parts = [getattr(owner, one.name) for owner in (batch, batch.layout, batch.layout.packed) for one in fields(owner)]
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    assert len(tensors) > 10 and {id(part) for part in tensors} | {id(sums)} == pinned
