"""Numbers that are not finite stop a run before they reach its weights, however late the host looks."""

from __future__ import annotations

import pytest
import torch

from nashtune.data.collate import completion_batch
from nashtune.errors import InputError
from nashtune.interfaces import LossOutput, TokenBatch
from nashtune.spec.model import OptimizerSpec
from nashtune.training.finite import FiniteGuard
from nashtune.training.optimizer import make_optimizer


def batch(*rows: int) -> TokenBatch:
    made = completion_batch([((1, 2), (3,)) for _ in rows])
    made.rows = torch.tensor(rows)
    return made


def see(guard: FiniteGuard, values: list[float], step: int) -> None:
    guard.see_loss(LossOutput(values=torch.tensor(values)), batch(7, 8, 9), step, lambda row: f"train.jsonl:{row}")


def test_the_first_step_and_its_rows_are_named_when_the_host_looks_later() -> None:
    guard = FiniteGuard()
    for step, values in enumerate(([1.0, 2.0, 3.0], [1.0, float("nan"), float("inf")], [float("nan")] * 3)):
        see(guard, values, step)
    with pytest.raises(InputError, match=r"step 1: .* on 2 of 3 rows: train.jsonl:8, train.jsonl:9"):
        guard.look()


def test_a_gradient_is_named_where_the_loss_was_finite() -> None:
    guard = FiniteGuard()
    see(guard, [1.0, 2.0, 3.0], 4)
    guard.see_gradient([torch.ones(3), torch.tensor([1.0, float("inf")])], 4)
    with pytest.raises(InputError, match="step 4: the gradient is not finite, though the loss is"):
        guard.look()


def test_nothing_to_say() -> None:
    guard = FiniteGuard()
    guard.look()
    see(guard, [1.0, 2.0, 3.0], 0)
    guard.see_gradient([torch.ones(3)], 0)
    guard.look()
    assert guard.flag is not None and float(guard.flag) == 0.0


@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
def test_a_held_optimiser_keeps_the_last_good_weights(name: str) -> None:
    """Until the host looks: the flag stays up, so later steps with finite gradients change nothing either."""
    guard, weight = FiniteGuard(), torch.nn.Parameter(torch.ones(4))
    optimizer = make_optimizer(OptimizerSpec(name=name, lr=0.1), [weight])
    for step, gradient in enumerate((1.0, float("nan"), 1.0)):
        weight.grad = torch.full((4,), gradient)
        guard.see_gradient([weight.grad], step)
        assert guard.hold(optimizer, [weight.grad])
        optimizer.step()
        if step == 0:
            good = weight.detach().clone()
    assert torch.equal(weight.detach(), good) and not torch.equal(good, torch.ones(4))


def test_other_optimisers_cannot_be_held() -> None:
    guard, weight = FiniteGuard(), torch.nn.Parameter(torch.ones(4))
    guard.see_gradient([torch.ones(4)], 0)
    assert not guard.hold(torch.optim.RMSprop([weight], weight_decay=0.1), [torch.ones(4)])
    assert not guard.hold(torch.optim.SGD([weight]), [torch.ones(4)])
