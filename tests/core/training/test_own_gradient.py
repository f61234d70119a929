"""Each rank sees its own gradient, and the average is what it is without anybody looking."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.nn.parallel import DistributedDataParallel

from nashtune.training.own_gradient import watch_own_gradient
from ranks import call_on_ranks

RANKS = 3


class Passes(torch.nn.Linear):
    """A micro-batch in passes, as `AlignmentModule.training_step`: backward of all but the last one."""

    def forward(self, *passes: torch.Tensor) -> torch.Tensor:
        for one in passes[:-1]:
            super().forward(one).square().sum().backward()
        return super().forward(passes[-1])


def averages(rank: int) -> None:
    seen: list[torch.Tensor] = []
    found = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = DistributedDataParallel(Passes(7, 5))
        strategy: Any = DDPStrategy()
        strategy._model, strategy._lightning_module = model, SimpleNamespace()
        assert not watched or watch_own_gradient(strategy, lambda own: seen.append(own.clone()))
        torch.manual_seed(rank + 1)
        with model.no_sync():
            model(torch.randn(4, 7)).square().sum().backward()
        model(*torch.randn(2, 4, 7)).square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, other in zip(*found, strict=True):
        assert torch.equal(plain, other), "bit for bit"
    own = torch.nn.Linear(7, 5)
    own.load_state_dict(model.module.state_dict())
    torch.manual_seed(rank + 1)
    for passes in (torch.randn(1, 4, 7), torch.randn(2, 4, 7)):
        own(passes.flatten(0, 1)).square().sum().backward()
    expected = torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None])
    assert len(seen) == 1, "where nothing is averaged nothing is looked at"
    torch.testing.assert_close(seen[0], expected.norm())
    averaged = torch.cat([gradient.flatten() for gradient in found[0]])
    assert abs(seen[0] - averaged.norm()) > 1e-3 * averaged.norm(), "what was seen is not the average"
    views: Any = DDPStrategy()
    views._model = DistributedDataParallel(torch.nn.Linear(2, 2), gradient_as_bucket_view=True)
    assert not watch_own_gradient(views, seen.append)


def test_three_ranks(tmp_path: Path) -> None:
    call_on_ranks(averages, tmp_path, ranks=RANKS)


def test_one_process_has_nothing_to_watch() -> None:
    assert not watch_own_gradient(SingleDeviceStrategy("cpu"), lambda own: None)
