"""Pairwise preference model: cross-entropy of one answer token, both orders of the answers."""

from __future__ import annotations

import pytest
import torch

from method_batches import assert_digits, assert_gradcheck, assert_pairs_are_independent, call, column, gradients, pairs
from nashtune.oracles.probability import both_orders
from nashtune_plugins.preference_pm import PreferencePMLoss, preference_cross_entropy
from reward_numbers import BOTH_ORDERS


def test_published_numbers():
    """Logits A 1.3, B 0.4 where A is better, and A 0.8, B 0.5 where B is; log-probs differ from them by a constant."""
    batch = pairs(BOTH_ORDERS)
    output = call(PreferencePMLoss(), batch)
    assert_digits(output.values, [0.3411538747, 0.8543552445])
    chosen, rejected = gradients(output, batch)
    torch.testing.assert_close(chosen, column([0.7109495026 - 1, 0.4255574832 - 1]), rtol=0, atol=1e-10)
    assert torch.equal(rejected, -chosen)
    assert output.reward_chosen.tolist() == BOTH_ORDERS["policy_chosen"]
    assert output.reward_rejected.tolist() == BOTH_ORDERS["policy_rejected"]


def test_it_trains_the_probability_that_the_oracle_gives():
    values = call(PreferencePMLoss(), pairs(BOTH_ORDERS)).values.detach()
    forward, backward = (-values).exp()
    assert_digits(torch.stack([forward, backward]), [0.7109495026, 0.4255574832])
    # asked with the answers exchanged, the oracle reads P(A), which is one minus that of the right token B
    asked = both_orders(forward.unsqueeze(0), 1 - backward.unsqueeze(0))
    assert_digits(asked, [0.5682534929])


def test_over_the_vocabulary_it_is_next_token_prediction():
    batch = pairs(BOTH_ORDERS)
    output = call(PreferencePMLoss(normalise="vocabulary"), batch)
    assert output.values.tolist() == [0.7, 1.5]
    chosen, rejected = gradients(output, batch)
    assert chosen.tolist() == [-1.0, -1.0] and rejected.tolist() == [0.0, 0.0]
    torch.testing.assert_close(output.metrics["answers"], column([-0.7, -1.5]).exp() + column([-1.6, -1.2]).exp())


@pytest.mark.parametrize("normalise", ["labels", "vocabulary"])
def test_soft_labels_mix_the_two_labels(normalise):
    right, wrong = (column(side) for side in BOTH_ORDERS.values())
    p = column([0.9, 0.25])
    hard, flipped = (
        preference_cross_entropy(*sides, normalise=normalise) for sides in ((right, wrong), (wrong, right))
    )
    soft = preference_cross_entropy(right, wrong, p_right_B=p, normalise=normalise)
    torch.testing.assert_close(soft, p * hard + (1 - p) * flipped)
    even = preference_cross_entropy(right, wrong, p_right_B=torch.full_like(p, 0.5), normalise=normalise)
    torch.testing.assert_close(even, (hard + flipped) / 2)


@pytest.mark.parametrize("normalise", ["labels", "vocabulary"])
def test_gradients_and_independence(normalise):
    assert_gradcheck(PreferencePMLoss(normalise=normalise))
    assert_pairs_are_independent(PreferencePMLoss(normalise=normalise))


def test_equally_likely_tokens_give_log_2():
    batch = pairs({"policy_chosen": [-3.0], "policy_rejected": [-3.0]})
    assert call(PreferencePMLoss(), batch).values.item() == pytest.approx(0.6931471805599453)
