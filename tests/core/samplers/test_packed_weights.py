"""Packed weights: the values of torch's own layers, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nashtune.samplers import packed_weights as module
from nashtune.samplers.packed_weights import available, packed_weights

pytestmark = pytest.mark.skipif(not available(torch.float32), reason="oneDNN's products are used on x86 alone")
INPUT, OUTPUT = 256, 512  # large enough to be worth it


@pytest.fixture
def counted(monkeypatch):
    """How often oneDNN was asked."""
    calls: list[tuple[int, ...]] = []
    real = module.product

    def noted(*args):
        calls.append(tuple(args[0].shape))
        return real(*args)

    monkeypatch.setattr(module, "product", noted)
    return calls


class Tied(nn.Module):
    """Two layers with one weight, and one below what is packed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(INPUT, OUTPUT), nn.Linear(INPUT, OUTPUT, bias=False)
        self.second.weight = self.first.weight
        self.small = nn.Linear(OUTPUT, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.small(self.first(x) + self.second(x))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_packed_weights_give_the_same_and_are_gone_afterwards(counted, rows, autocast):
    if autocast and not available(torch.bfloat16):
        pytest.skip("this processor has no bf16 products")
    model, x = Tied(), torch.randn(rows, INPUT)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        expected = model(x)
        with packed_weights([model, model], 4):
            assert model.first.forward._weight is model.second.forward._weight
            found = model(x)
            assert len(counted) == 2
        again = model(x)
    assert found.dtype == expected.dtype
    tolerance = 0.05 if autocast else 1e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(again, expected)
    assert not any("forward" in vars(part) for part in model.modules())


def test_a_float64_model_and_a_wrapped_layer_are_not_packed():
    model = Tied().double()
    with packed_weights([model], 4):
        assert not any("forward" in vars(part) for part in model.modules())
    model = Tied()
    model.first.forward = other = lambda x: x  # as accelerate's hooks do
    with packed_weights([model], 4):
        assert model.first.forward is other
        assert "forward" in vars(model.second)
    assert model.first.forward is other
