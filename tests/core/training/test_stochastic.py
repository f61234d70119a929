from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor

from nashtune.training import stochastic
from nashtune.training.stochastic import StochasticAdamW, round_stochastically


def steps(weight: Tensor, optimizer: torch.optim.Optimizer, grads: list[Tensor]) -> Tensor:
    for grad in grads:
        weight.grad = grad.to(weight.dtype)
        optimizer.step()
    return weight.detach()


def test_rounding_gives_one_of_two_neighbours_with_the_number_as_the_mean() -> None:
    value = 1.0 + 2**-7 * 0.3  # bfloat16 has 1 and 1 + 2**-7 around it
    noise = torch.Generator().manual_seed(0)
    rounded = round_stochastically(torch.full((100_000,), value), noise).float()
    assert set(rounded.unique().tolist()) == {1.0, 1.0 + 2**-7}
    assert abs(float((rounded - 1.0).mean()) / 2**-7 - 0.3) < 0.006  # four standard errors


def test_what_bfloat16_holds_is_not_rounded() -> None:
    exact = torch.tensor([0.0, -1.5, 3.0e38, torch.inf, -torch.inf]).bfloat16()
    rounded = round_stochastically(exact.float(), torch.Generator().manual_seed(0))
    assert torch.equal(rounded, exact)
    assert bool(round_stochastically(torch.tensor([torch.nan]), torch.Generator().manual_seed(0)).isnan().all())


def test_small_updates_arrive_that_rounding_to_the_nearest_loses() -> None:
    torch.manual_seed(0)
    kept, lost = torch.nn.Parameter(torch.ones(4000).bfloat16()), torch.nn.Parameter(torch.ones(4000).bfloat16())
    grads = [torch.ones(4000)] * 100
    steps(kept, StochasticAdamW([kept], lr=1e-5), grads)
    steps(lost, torch.optim.AdamW([lost], lr=1e-5, weight_decay=0.0, fused=True), grads)
    assert torch.equal(lost, torch.ones(4000).bfloat16())
    # below 1 the neighbours are 2**-8 apart: the standard error of the mean of 4,000 such walks is 3e-5
    assert abs(float((1 - kept.detach().float()).mean()) - 100 * 1e-5) < 1.5e-4


def test_float32_weights_are_updated_as_by_adamw(monkeypatch) -> None:
    monkeypatch.setattr(stochastic, "CHUNK", 7)
    torch.manual_seed(0)
    start, grads = torch.randn(5, 9), [torch.randn(5, 9) for _ in range(4)]
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    steps(ours, StochasticAdamW([ours], lr=1e-2, weight_decay=0.1), grads)
    steps(theirs, torch.optim.AdamW([theirs], lr=1e-2, weight_decay=0.1, foreach=False), grads)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_resumed_run_continues_bit_for_bit() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(33, 17).bfloat16())
    optimizer = StochasticAdamW([weight], lr=1e-3, betas=(0.9, 0.99))
    grads = [torch.randn(33, 17) for _ in range(6)]
    steps(weight, optimizer, grads[:3])
    file = io.BytesIO()
    torch.save({"weight": weight.detach(), "optimizer": optimizer.state_dict()}, file)
    steps(weight, optimizer, grads[3:])

    torch.manual_seed(99)  # the noise does not come from here
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = torch.nn.Parameter(saved["weight"])
    resumed = StochasticAdamW([again], lr=1.0)
    resumed.load_state_dict(saved["optimizer"])
    assert {value.dtype for value in resumed.state[again].values()} == {torch.float32}
    steps(again, resumed, grads[3:])
    assert torch.equal(again, weight)


def test_a_step_with_found_inf_changes_nothing() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(50).bfloat16())
    optimizer = StochasticAdamW([weight], lr=1e-2)
    steps(weight, optimizer, [torch.randn(50)])
    before = weight.detach().clone()
    moments = {name: value.clone() for name, value in optimizer.state[weight].items()}
    optimizer.found_inf = torch.ones(())
    steps(weight, optimizer, [torch.full((50,), torch.nan)])
    assert torch.equal(weight, before)
    assert all(torch.equal(optimizer.state[weight][name], value) for name, value in moments.items())


def test_what_is_not_finite_stays_so() -> None:
    bits = [0x7FFFFFFF, 0x7F800001, -1, -0x7FFFFF]  # NaN whose last bits carry over, or are cut off
    numbers = torch.tensor(bits, dtype=torch.int32).repeat(200).view(torch.float32)
    assert numbers.isnan().all()
    assert round_stochastically(numbers, torch.Generator().manual_seed(0)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_weight_may_lie_in_memory_as_it_likes(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stochastic, "CHUNK", 12)
    torch.manual_seed(0)
    start, grads = torch.randn(6, 10).to(dtype), [torch.randn(6, 10) for _ in range(3)]
    plain = torch.nn.Parameter(start.clone())
    turned = torch.nn.Parameter(start.t().contiguous().t())
    every_other = torch.nn.Parameter(torch.stack([start, start], dim=-1)[..., 0])
    assert not turned.is_contiguous() and not every_other.is_contiguous()
    expected = steps(plain, StochasticAdamW([plain], lr=1e-2), grads)
    for weight in (turned, every_other):
        assert torch.equal(steps(weight, StochasticAdamW([weight], lr=1e-2), grads), expected)


def test_a_number_is_a_weight() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0).bfloat16())
    moved = steps(weight, StochasticAdamW([weight], lr=0.5), [torch.tensor(2.0)])
    assert moved.dim() == 0 and 0.48 <= float(moved) <= 0.52


def test_passes_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(1000).bfloat16())
    StochasticAdamW([weight], lr=1e-2)
    passes = [torch.rand(1000).bfloat16() for _ in range(64)]
    exact, rounded = torch.zeros(1000), torch.zeros(1000).bfloat16()
    for number, one in enumerate(passes):
        (weight * one).sum().backward()
        assert weight.grad is not None
        assert weight.grad.dtype == (torch.float32 if number else torch.bfloat16)
        exact += one.float()
        rounded += one
    torch.testing.assert_close(weight.grad, exact, rtol=1e-6, atol=0)
    assert float((rounded.float() - exact).norm() / exact.norm()) > 2e-3
    weight.grad = None
    (weight * passes[0]).sum().backward()
    assert weight.grad is not None and weight.grad.dtype == torch.bfloat16
