"""DPO and cDPO: -log sigma(beta Delta) and its smoothed form.

Hand derivation for pair 1 of the four: Delta = (-20 + 22) - (-25 + 24) = 3, beta Delta = 0.3, -log sigma(0.3) =
0.5543552445, gradient -0.1 sigma(-0.3) = -0.0425557483.
"""

from __future__ import annotations

import math

import pytest
import torch

from method_batches import (
    assert_digits,
    assert_gradcheck,
    assert_output_is_well_formed,
    assert_pairs_are_independent,
    call,
    column,
    four,
    gradients,
    pairs,
    random_data,
)
from method_numbers import ONE
from nashtune.errors import InputError
from nashtune.spec.overrides import Override
from nashtune.spec.resolve import resolve
from nashtune_plugins.dpo import DPOLoss, dpo_loss

DPO = [0.5543552445, 0.8687926040, 0.6931471806, 0.3000584796]
DPO_GRAD = [0.0425557483, 0.0580542305, 0.05, 0.0259225101]
CDPO = [0.5843552445, 0.8362926040, 0.6931471806, 0.4050584796]
CDPO_GRAD = [0.0325557483, 0.0480542305, 0.04, 0.0159225101]


@pytest.mark.parametrize(("eps", "values", "grads"), [(0.0, DPO, DPO_GRAD), (0.1, CDPO, CDPO_GRAD)])
def test_published_numbers(eps, values, grads):
    batch = four()
    output = call(DPOLoss(label_smoothing=eps), batch, 0.1)
    chosen, rejected = gradients(output, batch)
    assert_digits(output.values, values)
    assert_digits(-chosen, grads)
    assert_digits(rejected, grads)


@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_gradients_shapes_and_independence(eps):
    loss = DPOLoss(label_smoothing=eps)
    assert_gradcheck(loss, 0.1)
    assert_pairs_are_independent(loss, 0.1)
    assert_output_is_well_formed(loss, 0.1)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
def test_is_log_2_where_policy_is_reference(eps):
    data = random_data()
    data["policy_chosen"], data["policy_rejected"] = data["ref_chosen"], data["ref_rejected"]
    values = call(DPOLoss(label_smoothing=eps), pairs(data), 0.5).values
    torch.testing.assert_close(values, torch.full_like(values, math.log(2.0)), rtol=0, atol=1e-15)


def test_a_constant_of_the_prompt_changes_nothing():
    moved = random_data()
    values = call(DPOLoss(), pairs(moved), 0.1).values
    for name in ("policy_chosen", "policy_rejected"):
        moved[name] = [value + 0.75 for value in moved[name]]
    torch.testing.assert_close(call(DPOLoss(), pairs(moved), 0.1).values, values)


def test_gradient_raises_chosen_and_lowers_rejected():
    batch = pairs(random_data(50))
    chosen, rejected = gradients(call(DPOLoss(), batch, 0.1), batch)
    assert bool((chosen < 0).all()) and torch.equal(chosen, -rejected)


def test_smoothed_gradient_changes_sign_at_the_bounded_margin():
    eps, beta = 0.1, 0.5
    turning = math.log((1 - eps) / eps) / beta
    delta = column([turning - 1e-3, turning, turning + 1e-3]).requires_grad_()
    (grad,) = torch.autograd.grad(dpo_loss(delta, column(beta), label_smoothing=eps).sum(), delta)
    assert grad[0] < 0 and abs(float(grad[1])) < 1e-15 and grad[2] > 0


def test_label_smoothing_silently_ignored():
    """Peers accept label_smoothing and train without it (both terms of the same sign, or the option unread)."""
    plain, smoothed = (call(DPOLoss(label_smoothing=eps), pairs(ONE), 0.1).values for eps in (0.0, 0.1))
    assert_digits(plain, [0.5130152524])
    assert_digits(smoothed, [0.5530152524])


def test_label_smoothing_is_not_rdpo():
    """0.4630152524 is what an unbiased estimate under flipped labels gives: another method."""
    plain, smoothed = (call(DPOLoss(label_smoothing=eps), pairs(ONE), 0.1).values.item() for eps in (0.0, 0.1))
    assert smoothed > plain > 0.4630152524


def test_soft_labels():
    certain = call(DPOLoss(), four(), 0.1).values
    assert torch.equal(call(DPOLoss(), four(p_chosen=column([1.0] * 4)), 0.1).values, certain)
    p = column([0.9, 0.6, 0.5, 0.2])
    smoothed = call(DPOLoss(label_smoothing=0.1), four(), 0.1).values
    torch.testing.assert_close(call(DPOLoss(), four(p_chosen=column([0.9] * 4)), 0.1).values, smoothed)
    delta = four().policy_chosen - four().policy_rejected - column([2.0, -2.0, 1.75, 1.5])
    swapped = dpo_loss(-delta, column(0.1), p_chosen_B=1 - p)
    torch.testing.assert_close(swapped, dpo_loss(delta, column(0.1), p_chosen_B=p))


def test_soft_label_optimum_is_the_logit_of_the_label():
    p, eps, beta = 0.7, 0.1, 0.25
    smoothed = p * (1 - eps) + (1 - p) * eps
    delta = column([math.log(smoothed / (1 - smoothed)) / beta]).requires_grad_()
    loss = dpo_loss(delta, column(beta), p_chosen_B=column([p]), label_smoothing=eps)
    (grad,) = torch.autograd.grad(loss.sum(), delta)
    assert abs(float(grad)) < 1e-15


def test_beta_per_pair_equals_scalars_one_by_one():
    betas = column([0.05, 0.1, 0.2, 0.4])
    together = call(DPOLoss(), four(), betas)
    for i, beta in enumerate(betas):
        alone = call(DPOLoss(), four(), beta)
        assert together.values[i] == alone.values[i] and together.reward_chosen[i] == alone.reward_chosen[i]


def test_large_margins_stay_finite():
    delta = column([-1e4, 1e4]).float().requires_grad_()
    values = dpo_loss(delta, column(0.5).float())
    assert values.tolist() == [5000.0, 0.0]
    assert torch.autograd.grad(values.sum(), delta)[0].tolist() == [-0.5, 0.0]


def test_half_or_more_smoothing_is_refused_by_name_and_before_anything_is_built():
    override = Override(("loss", "label_smoothing"), 0.5, "--spec.loss.label_smoothing")
    with pytest.raises(
        InputError, match=r"--spec\.loss\.label_smoothing: expected a number >= 0 and < 0\.5, found 0\.5"
    ):
        resolve("dpo", [override])
    with pytest.raises(ValueError, match=r"v<0\.5"):
        DPOLoss(label_smoothing=0.5)
