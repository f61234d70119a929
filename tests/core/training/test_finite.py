"""Numbers that are not finite stop a run before they reach its weights, however late the host looks."""

from __future__ import annotations

import pytest
import torch

from nashtune.data.collate import completion_batch
from nashtune.errors import InputError
from nashtune.interfaces import LossOutput, TokenBatch
from nashtune.spec.model import OptimizerSpec
from nashtune.training import finite
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
    said = "^step 4: the gradient is not finite, though the loss is; its rows: train.jsonl:7, train.jsonl:8, train.js"
    with pytest.raises(InputError, match=said):
        guard.look()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ([(3, False), (4, True)], "^rank 0 of 2, step 4: the gradient is not finite, though the loss is; its rows: t"),
        ([(4, True), (4, False)], "^rank 0 of 2, step 4: the gradient"),
        ([(4, False)], "^step 4: the gradient is not finite, though every loss is and the gradient of each of the 2 "),
        ([], "^step 4: some rank's gradient is not finite, .* rank 0: .*; rank 1: train.jsonl:1. Nothing was updated"),
    ],
)
def test_whose_gradient_it_was(monkeypatch: pytest.MonkeyPatch, own: list[tuple[int, bool]], message: str) -> None:
    """Of two ranks the other one's own gradient was finite, or is not known where ours is not."""
    guard = FiniteGuard()
    for step in (3, 4):
        see(guard, [1.0, 2.0, 3.0], step)
    for step, bad in own:
        guard.see_own(torch.tensor(float("nan") if bad else 2.0), step)
    guard.see_gradient([torch.ones(3)], 3)
    guard.see_gradient([torch.tensor([float("nan")])], 4)
    other = finite._Found(None, 4, "train.jsonl:1", False if own else None)
    monkeypatch.setattr(finite, "everyone", lambda found: [found, other])
    with pytest.raises(InputError, match=message):
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


@pytest.mark.parametrize("beta", [0.0, -0.1, float("inf")])
def test_a_beta_that_is_no_inverse_temperature_is_named_though_every_loss_is_finite(beta: float) -> None:
    guard = FiniteGuard("Cosine")
    for step, given in enumerate((0.1, 0.2, beta)):
        output = LossOutput(values=torch.ones(3), metrics={"beta": torch.tensor(given)})
        guard.see_loss(output, batch(7, 8, 9), step, lambda row: f"train.jsonl:{row}")
        guard.see_gradient([torch.ones(3)], step)
    said = (
        rf"^kl Cosine: beta gave {beta:g} at step 2; it must be > 0 and finite. Nothing was updated by this step. Keep"
    )
    with pytest.raises(InputError, match=said):
        guard.look()


def test_a_beta_that_is_no_number_is_said_with_the_rows_whose_loss_it_spoils() -> None:
    """Both may come of weights that are no numbers any more."""
    guard, nan = FiniteGuard("Cosine"), float("nan")
    output = LossOutput(values=torch.full((3,), nan), metrics={"beta": torch.tensor([0.1, nan, 0.1])})
    guard.see_loss(output, batch(7, 8, 9), 4, lambda row: f"train.jsonl:{row}")
    with pytest.raises(
        InputError, match=r"^step 4: .* on 3 of 3 rows: .*; kl Cosine: beta gave nan at step 4; .*--spec"
    ):
        guard.look()


def test_without_a_controller_a_metric_called_beta_is_the_losss_own() -> None:
    guard = FiniteGuard()
    output = LossOutput(values=torch.ones(3), metrics={"beta": torch.tensor(0.0)})
    guard.see_loss(output, batch(7, 8, 9), 0, lambda row: "")
    guard.look()
