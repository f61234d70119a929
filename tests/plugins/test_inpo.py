"""INPO: (h - 1/(2 eta))^2 against a mixture of reference and previous policy.

Hand derivation for pair 1 of THREE, eta 0.5, tau = eta/3: h = 3.5 - (1/3) 0.5 - (2/3) 2 = 2, (2 - 1)^2 = 1, gradient
2 (2 - 1) = 2.
"""

from __future__ import annotations

import math

import pytest
import torch

from game_numbers import THREE
from method_batches import (
    Game,
    assert_digits,
    assert_gradcheck,
    assert_output_is_well_formed,
    assert_pairs_are_independent,
    call,
    gradients,
    pairs,
    random_data,
)
from nashtune.errors import InputError
from nashtune.interfaces import Step
from nashtune.spec.resolve import build, resolve
from nashtune_plugins.inpo import INPOLoss
from nashtune_plugins.ipo import IPOLoss

NUMBERS = {
    0.5: (
        [1.0, 4.3402777778, 0.4444444444, 36.0],
        [2.0, -4.1666666667, -1.3333333333, 12.0],
        10.4461805556,
    ),
    0.005: (
        [9604.0, 10217.8402777778, 9933.4444444444, 8649.0],
        [-196.0, -202.1666666667, -199.3333333333, -186.0],
        9601.0711805556,
    ),
}


@pytest.mark.parametrize("eta", [0.5, 0.005])
def test_published_numbers(eta):
    batch = pairs(THREE)
    output = call(INPOLoss(eta=eta, tau=eta / 3), batch)
    values, slopes, mean = NUMBERS[eta]
    chosen, rejected = gradients(output, batch)
    for found, sheet in ((output.values, values), (chosen, slopes), (-rejected, slopes)):
        assert_digits(found, sheet)
    assert output.values.detach().mean().item() == pytest.approx(mean, abs=1e-10)
    assert_digits(output.metrics["log_ratio_margin"], [2.0, -1.0833333333, 0.3333333333, 7.0])
    assert_digits(output.metrics["target"], [1 / (2 * eta)] * 4)


@pytest.mark.parametrize("loss", [INPOLoss(eta=0.5, tau=0.2), INPOLoss(tau=0.2, eta_rule="last_iterate")])
def test_gradients_shapes_and_independence(loss):
    assert_gradcheck(loss)
    assert_pairs_are_independent(loss)
    assert_output_is_well_formed(loss)


def test_tau_equal_to_eta_is_summed_ipo_in_every_round():
    data = random_data()
    by_ipo = call(IPOLoss(tau=0.4, reduction="sum"), pairs(data)).values
    torch.testing.assert_close(call(INPOLoss(eta=0.4, tau=0.4), pairs(data), round=3).values, by_ipo)


def test_the_first_round_is_summed_ipo_whatever_tau_is():
    data = random_data()
    data["previous_chosen"], data["previous_rejected"] = data["ref_chosen"], data["ref_rejected"]
    by_ipo = call(IPOLoss(tau=0.4, reduction="sum"), pairs(data)).values
    for tau in (0.0, 0.1, 0.4):
        torch.testing.assert_close(call(INPOLoss(eta=0.4, tau=tau), pairs(data)).values, by_ipo)


def test_the_population_loss_is_stationary_at_the_closed_form():
    """Equation 5: pi_{t+1} ~ exp(P(y > pi_t)/eta) pi_ref^(tau/eta) pi_t^(1 - tau/eta), pairs drawn from pi_t."""
    game = Game(6, seed=1)
    ref, tau, eta = game.policy(), 0.1, 0.6
    step = ((tau / eta) * ref + (1 - tau / eta) * game.mu + game.wins / eta).log_softmax(0)
    loss = INPOLoss(eta=eta, tau=tau)
    assert float(game.slope(loss, step, ref=ref, previous=game.mu).abs().max()) < 1e-12
    assert float(game.slope(loss, game.mu, ref=ref, previous=game.mu).abs().max()) > 1e-2


def test_the_dice_game():
    """P(1>2) = P(2>3) = P(3>1) = 5/9, pi_t = (.6, .3, .1), uniform reference, tau .1, 1/eta = 5."""
    game = Game(3)
    game.prefer = torch.tensor([[9, 10, 8], [8, 9, 10], [10, 8, 9]], dtype=torch.float64) / 18
    game.mu = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64).log()
    published = torch.tensor([0.4995247549, 0.2908009817, 0.2096742633], dtype=torch.float64).log()
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64).log()
    slope = game.slope(INPOLoss(eta=0.2, tau=0.1), published, ref=uniform, previous=game.mu)
    assert float(slope.abs().max()) < 1e-9


def test_the_regularised_nash_policy_is_a_fixed_point_of_every_constant_step():
    game = Game(4, seed=2)
    ref, tau = game.policy(), 0.5
    nash = ref
    for _ in range(4000):
        nash = (0.9 * nash + 0.1 * (ref + game.prefer @ nash.exp() / tau)).log_softmax(0)
    game.mu = nash
    for eta in (0.5, 1.0, 20.0):
        slope = game.slope(INPOLoss(eta=eta, tau=tau), nash, ref=ref, previous=nash)
        assert float(slope.abs().max()) < 1e-12


def test_the_step_of_the_last_iterate_theorem():
    """eta_t = tau (t+2)/2: the reference's weight is 2/(t+2), the target 1/(tau (t+2))."""
    data, loss = random_data(), INPOLoss(tau=0.3, eta_rule="last_iterate")
    for t in (1, 2, 10):
        constant = INPOLoss(tau=0.3, eta=0.15 * (t + 2))
        assert torch.equal(call(loss, pairs(data), round=t).values, call(constant, pairs(data), round=t).values)
        assert float(call(loss, pairs(data), round=t).metrics["target"][0]) == pytest.approx(1 / (0.3 * (t + 2)))


def test_the_gradient_changes_sign_at_the_target():
    data = {"policy_chosen": [0.0, 1.0, 2.0], "policy_rejected": [0.0] * 3}
    data |= {f"{name}_{side}": [0.0] * 3 for name in ("ref", "previous") for side in ("chosen", "rejected")}
    batch = pairs(data)
    chosen, _ = gradients(call(INPOLoss(eta=0.5, tau=0.1), batch), batch)
    assert chosen.tolist() == [-2.0, 0.0, 2.0]


def test_implicit_rewards_have_the_margin_one_half_at_the_target():
    data = {"policy_chosen": [100.0], "policy_rejected": [0.0]}
    data |= {f"{name}_{side}": [0.0] for name in ("ref", "previous") for side in ("chosen", "rejected")}
    output = call(INPOLoss(eta=0.005, tau=0.001), pairs(data))
    assert output.values.item() == 0.0
    assert (output.reward_chosen - output.reward_rejected).item() == pytest.approx(0.5)


def test_anchors_carry_no_gradient():
    batch = pairs(THREE)
    frozen = batch.anchors["previous"].chosen
    values = INPOLoss(eta=0.5, tau=0.1)(batch, Step()).values
    assert not frozen.requires_grad and values.requires_grad


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tau": 0.6, "eta": 0.5}, "tau is 0.6 and eta is 0.5"),
        ({"tau": 0.1}, "constant needs eta"),
        ({"tau": 0.1, "eta": 0.5, "eta_rule": "last_iterate"}, "set eta to none"),
        ({"tau": 0.0, "eta_rule": "last_iterate"}, "needs tau > 0"),
    ],
)
def test_options_that_contradict_each_other(options, match):
    with pytest.raises(ValueError, match=match):
        INPOLoss(**options)
    spec = {**resolve("inpo").to_dict(), "loss": {"name": "inpo", **options}}
    with pytest.raises(InputError, match=match):
        build(resolve(spec).loss)


def test_the_bound_is_mirror_descents_with_its_own_step_alone():
    step = math.sqrt(2.0 / 50)
    text, value = INPOLoss(eta=1 / step, tau=0.0).gap_bound(50, 2.0) or ("", 0.0)
    assert text == "4 √(D/T)" and value == pytest.approx(4 * step)
    assert INPOLoss(eta=1 / step, tau=0.1).gap_bound(50, 2.0) is None
    assert INPOLoss(eta=1.1 / step, tau=0.0).gap_bound(50, 2.0) is None
