"""IPO: (Delta - 1/(2 tau))^2 with Delta of whole completions (sum) or per token (mean).

Hand derivation for pair 1 of the four, tau 0.1: target 5; sum: (3 - 5)^2 = 4, gradient 2 (3 - 5) = -4; mean: Delta =
2/10 + 1/12, (0.28333 - 5)^2 = 22.24694, gradient 2 (-4.71667)/10 = -0.94333.
"""

from __future__ import annotations

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
from nashtune.spec.resolve import resolve
from nashtune_plugins.ipo import IPOLoss, ipo_loss

NUMBERS = {
    "sum": ([4.0, 68.0625, 25.0, 30.25], [-4.0, -16.5, -10.0, 11.0], [4.0, 16.5, 10.0, -11.0]),
    "mean": (
        [22.2469444444, 27.1422393176, 25.0, 21.4291840278],
        [-0.9433333333, -0.6512276786, -2.0, -0.3857638889],
        [0.7861111111, 0.7442602041, 1.4285714286, 0.3086111111],
    ),
}


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_published_numbers(reduction):
    batch = four()
    output = call(IPOLoss(tau=0.1, reduction=reduction), batch)
    for found, sheet in zip((output.values, *gradients(output, batch)), NUMBERS[reduction], strict=True):
        assert_digits(found, sheet)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradients_shapes_and_independence(reduction):
    loss = IPOLoss(tau=0.3, reduction=reduction)
    assert_gradcheck(loss)
    assert_pairs_are_independent(loss)
    assert_output_is_well_formed(loss)


def test_ipo_of_peers_is_1_0_or_21_6_on_one_pair():
    """Systems that call their loss "ipo" give 1.0 (sums) or 21.6225 (per-token means) on this pair."""
    assert_digits(call(IPOLoss(tau=0.1, reduction="sum"), pairs(ONE)).values, [1.0])
    assert_digits(call(IPOLoss(tau=0.1, reduction="mean"), pairs(ONE)).values, [21.6225])


def test_the_two_specs_choose_on_purpose():
    assert resolve("ipo").loss.args["reduction"] == "mean"
    assert resolve("ipo_sum").loss.args["reduction"] == "sum"


def test_reduction_has_no_default():
    with pytest.raises(TypeError, match="reduction"):
        IPOLoss(tau=0.1)
    with pytest.raises(InputError, match="reduction"):
        resolve({"loss": {"name": "ipo", "tau": 0.1}, "kl": "none", "references": {"ref": "base"}})


def test_a_kl_controller_beside_ipo_is_an_error():
    spec = {
        "loss": {"name": "ipo", "tau": 0.1, "reduction": "sum"},
        "kl": {"name": "fixed", "beta": 0.1},
        "references": {"ref": "base"},
    }
    with pytest.raises(InputError, match="kl"):
        resolve(spec)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_where_policy_is_reference(reduction):
    data = random_data()
    data["policy_chosen"], data["policy_rejected"] = data["ref_chosen"], data["ref_rejected"]
    values = call(IPOLoss(tau=0.2, reduction=reduction), pairs(data)).values
    torch.testing.assert_close(values, torch.full_like(values, 1 / (4 * 0.2**2)))


def test_reductions_agree_on_single_tokens():
    data = random_data()
    data["len_chosen"] = data["len_rejected"] = [1] * 7
    by_sum, by_mean = (call(IPOLoss(tau=0.2, reduction=r), pairs(data)).values for r in ("sum", "mean"))
    assert torch.equal(by_sum, by_mean)


def test_optimum_is_finite_even_for_certain_preferences():
    """With win probability p the minimiser is (p - 1/2)/tau: at most 1/(2 tau)."""
    tau = 0.1
    for p in (0.5, 0.8, 1.0):
        delta = column([(p - 0.5) / tau]).requires_grad_()
        expected = p * ipo_loss(delta, tau=tau) + (1 - p) * ipo_loss(-delta, tau=tau)
        (grad,) = torch.autograd.grad(expected.sum(), delta)
        assert abs(float(grad)) < 1e-12


def test_gradient_changes_sign_at_the_target():
    delta = column([4.9, 5.0, 5.1]).requires_grad_()
    (grad,) = torch.autograd.grad(ipo_loss(delta, tau=0.1).sum(), delta)
    assert grad[0] < 0 and grad[1] == 0 and grad[2] > 0
