"""KTO: lam (1 - sigma(+-beta (h - z0))) per example.

Hand derivation for the first desirable example, beta 0.1, z0 0.75: h = 2, 0.1 * 1.25 = 0.125, 1 - sigma(0.125) =
0.4687906266, gradient -0.1 sigma(0.125)(1 - sigma(0.125)) = -0.0249025975.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from method_batches import assert_digits, column
from nashtune.errors import InputError
from nashtune.interfaces import ExampleBatch, LossOutput, Step
from nashtune_plugins.kto import KTOLoss, kto_loss, reference_point

DESIRABLE = [0.4687906266, 0.5805423048, 0.5187412159, 0.4563613128]
DESIRABLE_GRAD = [-0.0249025975, -0.0243512937, -0.0249648767, -0.0248095665]
UNDESIRABLE = [0.4563613128, 0.5, 0.4812587841, 0.2942149722]
UNDESIRABLE_GRAD = [0.0248095665, 0.025, 0.0249648767, 0.0207652522]


def examples(dtype: torch.dtype = torch.float64, mismatched: float = 0.75) -> ExampleBatch:
    """The four pairs as four desirable and four undesirable examples; every mismatched log-ratio is the same."""
    return ExampleBatch(
        policy=column([-20.0, -35.5, -12.75, -48.0, -25.0, -30.25, -14.5, -60.0], dtype).requires_grad_(),
        length=column([10, 16, 5, 24, 12, 14, 7, 30]).long(),
        desirable=column([1, 1, 1, 1, 0, 0, 0, 0]).bool(),
        anchors={"ref": column([-22.0, -33.0, -12.75, -50.5, -24.0, -31.0, -14.5, -52.0], dtype)},
        policy_mismatched=column([-40.0 + mismatched] * 8, dtype),
        anchors_mismatched={"ref": column([-40.0] * 8, dtype)},
    )


def call(batch: ExampleBatch, loss: KTOLoss | None = None, beta: float = 0.1, **step: object) -> LossOutput:
    return (loss or KTOLoss())(batch, Step(beta=column(beta, batch.policy.dtype), **step))


def test_published_numbers():
    batch = examples()
    output = call(batch)
    (grad,) = torch.autograd.grad(output.values.sum(), batch.policy)
    assert_digits(output.values, DESIRABLE + UNDESIRABLE)
    assert_digits(grad, DESIRABLE_GRAD + UNDESIRABLE_GRAD)
    assert_digits(output.values.mean(), 0.4695338161)
    assert output.metrics["z0"] == 0.75


def test_gradcheck():
    ratios = column([-3.0, -0.5, 0.0, 2.0, 8.0]).requires_grad_()
    desirable = column([1, 0, 1, 0, 1]).bool()

    def values(h: Tensor) -> Tensor:
        return kto_loss(h, desirable, column(0.4), column(0.3), lam_desirable=1.3, lam_undesirable=0.7)

    assert torch.autograd.gradcheck(values, (ratios,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_is_well_formed(dtype):
    output = call(examples(dtype))
    assert output.values.shape == (8,) and output.values.dtype == dtype and output.values.requires_grad
    assert output.reward_chosen[output.desirable].tolist() == pytest.approx([0.2, -0.25, 0.0, 0.25])
    assert output.reward_rejected[~output.desirable].tolist() == pytest.approx([-0.1, 0.075, 0.0, -0.8])
    for value in (output.reward_chosen, output.reward_rejected, output.metrics["z0"]):
        assert value.dtype == dtype and not value.requires_grad


def test_is_half_of_lam_where_policy_is_reference():
    batch = examples(mismatched=0.0)
    batch = replace(batch, policy=batch.anchors["ref"].clone().requires_grad_())
    values = call(batch, KTOLoss(lam_desirable=1.0, lam_undesirable=1.5)).values
    assert values.tolist() == [0.5] * 4 + [0.75] * 4


def test_gradient_raises_desirable_and_lowers_undesirable():
    batch = examples()
    (grad,) = torch.autograd.grad(call(batch).values.sum(), batch.policy)
    assert bool((grad[:4] < 0).all()) and bool((grad[4:] > 0).all())


def test_order_and_batch_mates_matter_only_through_z0():
    batch, values = examples(), call(examples()).values
    pick = torch.tensor([6, 1, 3])
    part = replace(
        batch,
        policy=batch.policy[pick],
        desirable=batch.desirable[pick],
        anchors={"ref": batch.anchors["ref"][pick]},
    )
    assert torch.equal(call(part).values, values[pick])


def test_z0_carries_no_gradient():
    batch = examples()
    mismatched = batch.policy_mismatched.clone().requires_grad_()
    output = call(replace(batch, policy_mismatched=mismatched))
    assert torch.autograd.grad(output.values.sum(), mismatched, allow_unused=True) == (None,)


def test_negative_estimates_of_the_divergence_count_as_0():
    assert torch.equal(call(examples(mismatched=-2.0)).values, call(examples(mismatched=0.0)).values)


def test_z0_is_clamped_after_the_mean_over_ranks():
    """Clamping each rank's mean first would give (0 + 3)/2."""
    mine, other = column([-2.0, -2.0]), column([3.0, 3.0])
    assert reference_point(mine, lambda own: (own + torch.stack([other.sum(), column(2.0)])) / 2) == 0.5


def test_z0_weighs_every_completion_alike_on_unequal_ranks():
    """Ranks with 3 and 1 completions: the mean of the four, not the mean of the ranks' means (2.5)."""
    mine, other = column([1.0, 1.0, 1.0]), column([4.0])
    assert reference_point(mine, lambda own: (own + torch.stack([other.sum(), column(1.0)])) / 2) == 1.75


def test_saturated_examples_keep_their_digits():
    h = column([40.0]).requires_grad_()
    value = kto_loss(h, column([1]).bool(), column(0.0), column(1.0), lam_desirable=1.0, lam_undesirable=1.0)
    assert value.item() == pytest.approx(4.248354255291589e-18, rel=1e-12)


def test_a_batch_without_mismatched_completions_is_refused():
    with pytest.raises(InputError, match="z0"):
        call(replace(examples(), policy_mismatched=None))
