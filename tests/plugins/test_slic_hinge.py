"""SLiC as hinge-norm: max(0, 1 - beta Delta). Pair 1 of the four at beta 0.1: 1 - 0.3 = 0.7, gradient -0.1."""

from __future__ import annotations

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
from nashtune_plugins.slic_hinge import SLiCHingeLoss, slic_hinge_loss


def test_published_numbers():
    batch = four()
    output = call(SLiCHingeLoss(), batch, 0.1)
    chosen, rejected = gradients(output, batch)
    assert_digits(output.values, [0.7, 1.325, 1.0, 0.0])
    assert_digits(-chosen, [0.1, 0.1, 0.1, 0.0])
    assert_digits(rejected, [0.1, 0.1, 0.1, 0.0])
    assert output.metrics["active"].tolist() == [1.0, 1.0, 1.0, 0.0]


def test_gradients_shapes_and_independence():
    assert_gradcheck(SLiCHingeLoss(), 0.1)
    assert_pairs_are_independent(SLiCHingeLoss(), 0.1)
    assert_output_is_well_formed(SLiCHingeLoss(), 0.1)


def test_is_1_where_policy_is_reference():
    data = random_data()
    data["policy_chosen"], data["policy_rejected"] = data["ref_chosen"], data["ref_rejected"]
    assert call(SLiCHingeLoss(), pairs(data), 0.7).values.tolist() == [1.0] * 7


def test_equals_slic_on_log_ratios_with_margin_1_over_beta():
    """SLiC's calibration term max(0, delta - Delta) with delta = 1/beta, scaled by beta."""
    delta, beta = column([-3.0, 0.0, 3.0, 9.0, 11.0]), 0.1
    slic = (1 / beta - delta).clamp(min=0)
    torch.testing.assert_close(slic_hinge_loss(delta, column(beta)), beta * slic)


def test_a_pair_beyond_the_margin_is_left_alone():
    delta = column([9.999, 10.0, 10.001]).requires_grad_()
    (grad,) = torch.autograd.grad(slic_hinge_loss(delta, column(0.1)).sum(), delta)
    torch.testing.assert_close(grad, column([-0.1, 0.0, 0.0]))


def test_beta_per_pair():
    betas = column([0.05, 0.1, 0.2, 0.01])
    torch.testing.assert_close(call(SLiCHingeLoss(), four(), betas).values, column([0.85, 1.325, 1.0, 0.895]))
