"""SPPO: each completion's log-ratio is regressed upon eta times its win rate, less one half.

Hand derivation for pair 1, eta 10: h = (2, -1), win rates (.8, .25), targets (3, -2.5): ((2-3)^2 + (-1+2.5)^2)/2 =
(1 + 2.25)/2 = 1.625, gradients 2-3 = -1 and -1+2.5 = 1.5.
"""

from __future__ import annotations

import math

import pytest
import torch

from game_numbers import CERTAINTY, RATED
from method_batches import (
    Game,
    assert_digits,
    assert_gradcheck,
    assert_output_is_well_formed,
    assert_pairs_are_independent,
    call,
    column,
    gradients,
    pairs,
    random_data,
)
from nashtune.errors import InputError
from nashtune.evaluation.vectors import run_case
from nashtune.spec.resolve import resolve
from nashtune_plugins.inpo import INPOLoss
from nashtune_plugins.sppo import SPPOLoss

NUMBERS = {
    ("win_rate", 1000.0): (
        [75402.5, 16703.40625, 1250.0, 176685.125],
        [-298.0, -152.5, -50.0, -397.5],
        [249.0, 100.75, 0.0, 442.0],
        67510.2578125,
    ),
    ("win_rate", 10.0): (
        [1.625, 9.53125, 0.125, 7.25],
        [-1.0, -4.0, -0.5, -1.5],
        [1.5, 1.75, 0.0, -3.5],
        4.6328125,
    ),
    ("single", 10.0): (
        [6.5, 13.90625, 0.25, 8.125],
        [-2.0, -4.5, -0.5, -2.0],
        [3.0, 2.75, 0.5, -3.5],
        7.1953125,
    ),
}
FORMS = [
    SPPOLoss(eta=3.0),
    SPPOLoss(eta=3.0, targets="single"),
    SPPOLoss(eta=3.0, targets="hard"),
    SPPOLoss(eta=3.0, log_partition="cancelled"),
]


@pytest.mark.parametrize(("targets", "eta"), NUMBERS)
def test_published_numbers(targets, eta):
    batch = pairs(RATED, p_chosen=column(CERTAINTY))
    output = call(SPPOLoss(eta=eta, targets=targets), batch)
    values, chosen, rejected, mean = NUMBERS[targets, eta]
    for found, sheet in zip((output.values, *gradients(output, batch)), (values, chosen, rejected), strict=True):
        torch.testing.assert_close(found.detach(), column(sheet), rtol=1e-12, atol=1e-10)
    assert output.values.detach().mean().item() == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("loss", FORMS)
def test_gradients_shapes_and_independence(loss):
    assert_gradcheck(loss)
    assert_pairs_are_independent(loss)
    assert_output_is_well_formed(loss)


def test_hard_labels_are_certain_pairs_without_the_factor_one_half():
    data = random_data()
    hard = call(SPPOLoss(eta=4.0, targets="hard"), pairs(data))
    certain = call(SPPOLoss(eta=4.0, targets="single"), pairs(data))
    assert torch.equal(hard.values, 2.0 * certain.values)
    sure = call(SPPOLoss(eta=4.0, targets="single"), pairs(data, p_chosen=column([1.0] * 7)))
    assert torch.equal(sure.values, certain.values)


def test_each_completion_has_its_own_minimum():
    """Unlike DPO's, the loss is not a function of the difference of log-ratios."""
    batch = pairs(RATED)
    at_target = dict(RATED)
    for side in ("chosen", "rejected"):
        both = zip(RATED[f"previous_{side}"], RATED[f"win_rate_{side}"], strict=True)
        at_target[f"policy_{side}"] = [logp + 10 * (rate - 0.5) for logp, rate in both]
    best = call(SPPOLoss(eta=10.0), pairs(at_target)).values
    assert float(best.detach().abs().max()) < 1e-20
    moved = {name: [v + 1.0 for v in values] if "policy" in name else values for name, values in at_target.items()}
    assert_digits(call(SPPOLoss(eta=10.0), pairs(moved)).values, [1.0] * 4)
    assert float(call(SPPOLoss(eta=10.0), batch).values.detach().min()) > 0


def test_where_the_normaliser_cancels_constants_of_the_prompt_do_too():
    data = random_data()
    moved = {name: [v + 1.0 for v in values] if "policy" in name else values for name, values in data.items()}
    exact = SPPOLoss(eta=2.0, log_partition="cancelled")
    torch.testing.assert_close(call(exact, pairs(moved)).values, call(exact, pairs(data)).values)


def test_equal_win_rates_pull_back_to_the_last_policy():
    data = random_data()
    data["win_rate_chosen"] = data["win_rate_rejected"] = [0.5] * 7
    batch = pairs(data)
    chosen, rejected = gradients(call(SPPOLoss(eta=1000.0), batch), batch)
    h_w, h_l = batch.log_ratios("previous")
    torch.testing.assert_close(chosen, h_w.detach())
    torch.testing.assert_close(rejected, h_l.detach())


def test_the_exact_form_is_stationary_at_the_multiplicative_weights_step_as_inpo_is():
    game, eta = Game(6, seed=5), 1.3
    step = (game.mu + eta * game.wins).log_softmax(0)
    exact = SPPOLoss(eta=eta, log_partition="cancelled")
    assert float(game.slope(exact, step, previous=game.mu).abs().max()) < 1e-12
    labels = INPOLoss(eta=1 / eta, tau=0.0)
    assert float(game.slope(labels, step, previous=game.mu, ref=game.mu).abs().max()) < 1e-12


@pytest.mark.parametrize("targets", ["win_rate", "single", "hard"])
def test_the_half_form_is_stationary_at_win_rates_less_one_half_whatever_the_targets(targets):
    """Over unnormalised log-probs: h = eta (P(y > pi_t) - 1/2), whose normaliser is off by O(eta^2)."""
    game, eta = Game(6, seed=5), 1.3
    loss = SPPOLoss(eta=eta, targets=targets)
    step = game.mu + eta * (game.wins - 0.5)
    assert float(game.slope(loss, step, previous=game.mu).abs().max()) < 1e-12


def test_implicit_rewards_are_win_rates_less_one_half():
    data = {"policy_chosen": [3.0], "policy_rejected": [-2.0], "previous_chosen": [0.0], "previous_rejected": [0.0]}
    data |= {"win_rate_chosen": [0.8], "win_rate_rejected": [0.3]}
    output = call(SPPOLoss(eta=10.0), pairs(data))
    assert output.reward_chosen.item() == pytest.approx(0.3) and output.reward_rejected.item() == pytest.approx(-0.2)
    assert output.metrics["log_ratio_margin"].item() == 5.0 and output.metrics["target"].item() == pytest.approx(5.0)


def test_cancelled_takes_win_rates():
    with pytest.raises(ValueError, match="the loss inpo with tau 0"):
        SPPOLoss(eta=1.0, targets="hard", log_partition="cancelled")


def test_missing_win_rates_are_named():
    inputs = {name: value for name, value in RATED.items() if not name.startswith("win")}
    with pytest.raises(InputError, match="sppo needs win_rate_chosen and win_rate_rejected"):
        run_case(resolve("sppo"), {"inputs": inputs})


def test_the_pairing_gives_win_rates():
    spec = resolve("sppo").to_dict()
    assert resolve("sppo").pairing.name == "best_worst"
    with pytest.raises(InputError, match="win rate"):
        resolve({**spec, "pairing": "tournament"})


def test_the_bound_is_that_of_the_exact_step_alone():
    step = math.sqrt(1.5 / 40)
    text, value = SPPOLoss(eta=step, log_partition="cancelled").gap_bound(40, 1.5) or ("", 0.0)
    assert text == "4 √(D/T)" and value == pytest.approx(4 * step)
    assert SPPOLoss(eta=step).gap_bound(40, 1.5) is None
    assert SPPOLoss(eta=2 * step, log_partition="cancelled").gap_bound(40, 1.5) is None
