"""ONPO: (g - eta/2)^2 against the auxiliary policy, and a schedule of two mirror steps a round.

Hand derivation for pair 1 of PLAYED, eta 2: g = (-12 + 15.5) - (-13 + 15) = 1.5, (1.5 - 1)^2 = 0.25, gradient
2 (1.5 - 1) = 1.
"""

from __future__ import annotations

import math

import pytest
import torch

from game_numbers import AUX
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
from nashtune.interfaces.schedule import START, Anchor, Collect, Judge, Pair, Snapshot, Update
from nashtune.spec.resolve import resolve
from nashtune_plugins.inpo import INPOLoss
from nashtune_plugins.ipo import IPOLoss
from nashtune_plugins.onpo import ONPOLoss, ONPOSchedule, virtual_auxiliary

NUMBERS = {
    2.0: ([0.25, 5.0625, 0.5625, 20.25], [1.0, -4.5, -1.5, 9.0], 6.53125),
    100.0: ([2352.25, 2626.5625, 2475.0625, 1980.25], [-97.0, -102.5, -99.5, -89.0], 2358.53125),
}


@pytest.mark.parametrize("eta", [2.0, 100.0])
def test_published_numbers(eta):
    batch = pairs(AUX)
    output = call(ONPOLoss(eta=eta), batch)
    values, slopes, mean = NUMBERS[eta]
    chosen, rejected = gradients(output, batch)
    for found, sheet in ((output.values, values), (chosen, slopes), (-rejected, slopes)):
        assert_digits(found, sheet)
    assert output.values.detach().mean().item() == pytest.approx(mean, abs=1e-12)
    assert output.metrics["log_ratio_margin"].tolist() == [1.5, -1.25, 0.25, 5.5]
    assert output.metrics["target"].tolist() == [eta / 2] * 4


def test_gradients_shapes_and_independence():
    loss = ONPOLoss(eta=3.0)
    assert_gradcheck(loss)
    assert_pairs_are_independent(loss)
    assert_output_is_well_formed(loss)


def test_the_first_round_is_ipo_with_tau_one_over_eta():
    data = random_data()
    data["aux_chosen"], data["aux_rejected"] = data["ref_chosen"], data["ref_rejected"]
    for eta in (0.5, 4.0):
        by_ipo = call(IPOLoss(tau=1 / eta, reduction="sum"), pairs(data)).values
        torch.testing.assert_close(call(ONPOLoss(eta=eta), pairs(data)).values, by_ipo, rtol=1e-14, atol=0)


def test_one_update_alone_is_inpo_without_its_kl_divergence():
    data = random_data()
    data["aux_chosen"], data["aux_rejected"] = data["previous_chosen"], data["previous_rejected"]
    by_inpo = call(INPOLoss(eta=0.25, tau=0.0), pairs(data)).values
    assert torch.equal(call(ONPOLoss(eta=4.0), pairs(data)).values, by_inpo)


def test_the_gradient_is_zero_at_the_target_and_changes_sign_there():
    """Unlike DPO's it pulls an over-separated pair back."""
    data = {"policy_chosen": [-4.0, -3.0, -2.0], "policy_rejected": [-5.0, -5.0, -5.0]}
    data |= {"aux_chosen": [-6.0] * 3, "aux_rejected": [-6.0] * 3}
    batch = pairs(data)
    output = call(ONPOLoss(eta=4.0), batch)  # g = 1, 2, 3; target 2
    chosen, _ = gradients(output, batch)
    assert chosen.tolist() == [-2.0, 0.0, 2.0] and output.values.tolist() == [1.0, 0.0, 1.0]


def test_swapping_the_answers_adds_two_eta_g():
    data = random_data()
    swapped = {name.replace("chosen", "?"): value for name, value in data.items()}
    swapped = {name.replace("rejected", "chosen").replace("?", "rejected"): value for name, value in swapped.items()}
    loss = ONPOLoss(eta=1.5)
    straight, turned = call(loss, pairs(data)), call(loss, pairs(swapped))
    g = straight.metrics["log_ratio_margin"]
    torch.testing.assert_close(turned.values - straight.values, 2 * 1.5 * g, rtol=1e-12, atol=1e-12)


def test_constants_of_the_prompt_cancel():
    data = random_data()
    moved = {name: [value - 3.25 for value in values] if "policy" in name else values for name, values in data.items()}
    loss = ONPOLoss(eta=2.0)
    torch.testing.assert_close(call(loss, pairs(moved)).values, call(loss, pairs(data)).values)


def test_two_steps_at_once_have_twice_the_target():
    data = random_data()
    once = call(ONPOLoss(eta=4.0), pairs(data))
    double = call(ONPOLoss(eta=2.0), pairs(data), scale=2.0)
    assert torch.equal(once.values, double.values) and torch.equal(once.reward_chosen, double.reward_chosen)


def test_implicit_rewards_are_win_rates_with_the_margin_one_half_at_the_target():
    eta = 5.0
    won, lost = 0.9, 0.4
    data = {"policy_chosen": [eta * won], "policy_rejected": [eta * lost], "aux_chosen": [0.0], "aux_rejected": [0.0]}
    output = call(ONPOLoss(eta=eta), pairs(data))
    assert output.reward_chosen.item() == pytest.approx(won) and output.reward_rejected.item() == pytest.approx(lost)


def test_the_population_loss_is_stationary_at_the_mirror_step():
    game = Game(6, seed=3)
    eta, anchor = 1.7, game.policy()
    step = (anchor + eta * game.wins).log_softmax(0)
    assert float(game.slope(ONPOLoss(eta=eta), step, aux=anchor).abs().max()) < 1e-12
    assert float(game.slope(ONPOLoss(eta=eta), anchor, aux=anchor).abs().max()) > 1e-2


def test_trained_rounds_make_both_policies_from_the_same_pairs():
    first, second = ONPOSchedule(rounds=2).rounds()
    assert first.phases == (
        Collect(policy=START),
        Judge(),
        Pair(),
        Anchor(previous={START: 1.0}),
        Update(start=START, name="aux"),
        Snapshot(name="aux@1"),
        Anchor(previous={"aux@1": 1.0}),
        Update(start="aux@1", name="main"),
        Snapshot(name="main@1"),
    )
    assert second.phases == (
        Collect(policy="main@1"),
        Judge(),
        Pair(),
        Anchor(previous={"aux@1": 1.0}),
        Update(start="aux@1", name="aux"),
        Snapshot(name="aux@2"),
        Anchor(previous={"aux@2": 1.0}),
        Update(start="aux@2", name="main"),
        Snapshot(name="main@2"),
    )
    assert second.policy == "main@2"


def test_virtual_rounds_train_once_with_twice_the_step():
    rounds = ONPOSchedule(rounds=3, aux="virtual").rounds()
    assert rounds[2].phases[3:] == (
        Anchor(previous={START: 0.25, "main@1": 0.25, "main@2": 0.5}),
        Update(start="main@2", step_scale=2.0),
        Snapshot(name="main@3"),
    )
    assert rounds[0].phases[3] == Anchor(previous={START: 1.0})


def test_the_virtual_auxiliary_is_the_trained_one():
    """Mirror steps on a random game: the mixture's weights give log pi'_t up to a constant, and both runs agree."""
    game, eta = Game(5), 0.7
    start = game.policy()
    played, aux = {START: start}, start
    last = start
    for t in range(1, 9):
        mixed = torch.stack([weight * played[name] for name, weight in virtual_auxiliary(t).items()]).sum(0)
        torch.testing.assert_close(mixed.log_softmax(0), aux, rtol=0, atol=1e-12)
        wins = game.prefer @ last.exp()
        aux = (aux + eta * wins).log_softmax(0)
        virtual = (mixed + 2 * eta * wins).log_softmax(0)
        last = (aux + eta * wins).log_softmax(0)
        torch.testing.assert_close(virtual, last, rtol=0, atol=1e-12)
        played[f"main@{t}"] = last


def test_the_mixture_stays_short_and_sums_to_one():
    weights = virtual_auxiliary(500)
    assert sum(weights.values()) == 1.0 and len(weights) <= 61 and weights["main@499"] == 0.5


def test_the_bound_holds_for_small_steps_alone():
    text, value = ONPOLoss(eta=0.5).gap_bound(rounds=100, divergence=math.log(10)) or ("", 0.0)
    assert text == "(2D/η + 2η)/T" and value == pytest.approx((4 * math.log(10) + 1) / 100)
    assert ONPOLoss(eta=0.71).gap_bound(100, 1.0) is None


def test_a_step_must_be_positive_and_is_required():
    with pytest.raises(InputError, match=r"loss\.eta: expected a number > 0, found 0"):
        resolve({**resolve("onpo").to_dict(), "loss": {"name": "onpo", "eta": 0}})
    with pytest.raises(TypeError, match="eta"):
        ONPOLoss()


def test_the_gradient_of_a_far_target_is_nearly_constant():
    """Why the log-ratios are logged: at eta 100 the value says little."""
    batch = pairs(AUX)
    chosen, _ = gradients(call(ONPOLoss(eta=100.0), batch), batch)
    assert torch.all((chosen / -100.0 - 1.0).abs() < 0.12)
