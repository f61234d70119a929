"""Nash-MD as a regression: (h - eta/2)^2 against the mixture that the pairs are drawn from.

Hand derivation for pair 1 of THREE, eta 2, tau 1/6: the reference's weight is 1/3, h = 3.5 - (1/3) 0.5 - (2/3) 2 = 2,
(2 - 1)^2 = 1, gradient 2.
"""

from __future__ import annotations

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
from nashtune.spec.resolve import build, resolve
from nashtune_plugins.inpo import INPOLoss
from nashtune_plugins.nash_md import NashMDLoss


def test_numbers_by_hand():
    batch = pairs(THREE)
    output = call(NashMDLoss(eta=2.0, tau=1 / 6), batch)
    assert_digits(output.values, [1.0, 4.3402777778, 0.4444444444, 36.0])
    assert_digits(gradients(output, batch)[0], [2.0, -4.1666666667, -1.3333333333, 12.0])


@pytest.mark.parametrize("loss", [NashMDLoss(eta=2.0, tau=0.2), NashMDLoss(tau=0.2, eta_rule="last_iterate")])
def test_gradients_shapes_and_independence(loss):
    assert_gradcheck(loss)
    assert_pairs_are_independent(loss)
    assert_output_is_well_formed(loss)


def test_on_given_pairs_it_is_inpo_with_the_inverse_step():
    """What differs from INPO is where the pairs come from."""
    data = random_data()
    by_inpo = call(INPOLoss(eta=1 / 3, tau=0.2), pairs(data))
    found = call(NashMDLoss(eta=3.0, tau=0.2), pairs(data))
    torch.testing.assert_close(found.values, by_inpo.values)
    torch.testing.assert_close(found.reward_chosen, by_inpo.reward_chosen)


def mixture(policy: torch.Tensor, ref: torch.Tensor, weight: float) -> torch.Tensor:
    return ((1 - weight) * policy + weight * ref).log_softmax(0)


def test_the_population_loss_over_the_mixture_is_stationary_at_the_papers_step():
    game = Game(6, seed=4)
    policy, ref, eta, tau = game.policy(), game.policy(), 1.5, 0.2
    loss = NashMDLoss(eta=eta, tau=tau)
    game.mu = mixture(policy, ref, loss.reference_weight(1))
    step = (game.mu + eta * game.wins).log_softmax(0)
    assert float(game.slope(loss, step, ref=ref, previous=policy).abs().max()) < 1e-12
    game.mu = policy  # INPO's pairs give another step
    assert float(game.slope(loss, step, ref=ref, previous=policy).abs().max()) > 1e-3


def test_the_dice_game():
    """P(1>2) = P(2>3) = P(3>1) = 5/9, pi_t = (.6, .3, .1), uniform reference, tau .1, eta 5."""
    game = Game(3)
    game.prefer = torch.tensor([[9, 10, 8], [8, 9, 10], [10, 8, 9]], dtype=torch.float64) / 18
    policy = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64).log()
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64).log()
    loss = NashMDLoss(eta=5.0, tau=0.1)
    game.mu = mixture(policy, uniform, loss.reference_weight(1))
    assert_digits(game.mu.exp(), [0.4727338750, 0.3342733287, 0.1929927963])
    assert_digits(game.wins, [0.5078489185, 0.4844588290, 0.5076922526])
    published = torch.tensor([0.4909200613, 0.3088195942, 0.2002603445], dtype=torch.float64).log()
    assert float(game.slope(loss, published, ref=uniform, previous=policy).abs().max()) < 1e-8


def test_the_step_and_the_mixture_of_the_last_iterate_theorem():
    loss = NashMDLoss(tau=0.1, eta_rule="last_iterate")
    assert [loss.eta_of(t) for t in (1, 2, 8)] == pytest.approx([20 / 3, 5.0, 2.0])
    assert [loss.reference_weight(t) for t in (1, 2, 8)] == pytest.approx([2 / 3, 1 / 2, 1 / 5])
    constant = NashMDLoss(tau=0.1, eta=2.0)
    assert [constant.reference_weight(t) for t in (1, 9)] == pytest.approx([0.2, 0.2])
    data = random_data()
    torch.testing.assert_close(call(loss, pairs(data), round=8).values, call(constant, pairs(data), round=8).values)


def test_the_regularised_nash_policy_is_no_fixed_point():
    """The step is centred on the mixture but judged against it too: it moves away by O(eta^2)."""
    game = Game(4, seed=2)
    ref, tau = game.policy(), 0.5
    nash = ref
    for _ in range(4000):
        nash = (0.9 * nash + 0.1 * (ref + game.prefer @ nash.exp() / tau)).log_softmax(0)
    drifts = []
    for eta in (1e-2, 1e-3):
        mixed = mixture(nash, ref, eta * tau)
        after = (mixed + eta * game.prefer @ mixed.exp()).log_softmax(0)
        drifts.append(float((after - nash).abs().max()))
    assert drifts[0] / drifts[1] == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tau": 0.6, "eta": 2.0}, "eta is 2.0 and tau is 0.6"),
        ({"tau": 0.1}, "constant needs eta"),
        ({"tau": 0.1, "eta": 0.5, "eta_rule": "last_iterate"}, "set eta to none"),
        ({"tau": 0.0, "eta_rule": "last_iterate"}, "needs tau > 0"),
    ],
)
def test_options_that_contradict_each_other(options, match):
    with pytest.raises(ValueError, match=match):
        NashMDLoss(**options)
    with pytest.raises(InputError, match=match):
        build(resolve({**resolve("nash_md").to_dict(), "loss": {"name": "nash_md", **options}}).loss)


def test_the_theorem_bounds_a_divergence_and_not_the_gap():
    assert NashMDLoss(tau=0.1, eta_rule="last_iterate").gap_bound(100, 1.0) is None


def test_pairs_come_from_a_sampler_that_mixes():
    spec = resolve("nash_md")
    assert spec.sampler is not None and spec.sampler.name == "mixture"
    assert spec.pairing is not None and spec.pairing.name == "iid"


def test_the_theorem_holds_on_a_game_and_is_stated_for_its_step_alone():
    from nashtune.games.find import find_game
    from nashtune.games.verify import verify
    from nashtune.spec.overrides import Override
    from nashtune.spec.resolve import resolve

    settings = {("loss", "eta"): None, ("loss", "eta_rule"): "last_iterate", ("loss", "tau"): 0.5}
    spec = resolve("nash_md", [Override(path, value, "test") for path, value in settings.items()])
    report = verify(resolve(spec.to_dict(), [Override(("schedule", "rounds"), 20, "test")]), [find_game("rps")])
    formula, bound = report.kl_bound
    assert formula == "8/(τ²(T + 1))" and bound[0] == 8 / (0.25 * 2)
    assert all(found <= limit for found, limit in zip(report.kl_regularised, bound, strict=True))
    assert NashMDLoss(eta=0.5, tau=0.1).kl_bound(10) is None
