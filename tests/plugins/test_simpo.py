"""SimPO: -log sigma(beta (a_w - a_l - gamma/beta)), a = average log-prob per token.

Hand derivation for pair 1 of the four, beta 2.5, gamma/beta 0.55: a_w = -2, a_l = -25/12, 2.5 (0.0833333 - 0.55) =
-1.1666667, -log sigma(-1.1666667) = 1.4377643939.
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
from nashtune_plugins.dpo import DPOLoss
from nashtune_plugins.simpo import SimPOLoss


def test_published_numbers():
    batch = four()
    output = call(SimPOLoss(beta=2.5, gamma_beta_ratio=0.55), batch)
    chosen, rejected = gradients(output, batch)
    assert_digits(output.values, [1.4377643939, 1.7178677335, 2.6450751322, 1.6004126516])
    assert_digits(chosen, [-0.1906354929, -0.1282111919, -0.4644999904, -0.0831444560])
    assert_digits(rejected, [0.1588629108, 0.1465270764, 0.3317857074, 0.0665155648])


def test_gradients_shapes_and_independence():
    loss = SimPOLoss(beta=2.0, gamma_beta_ratio=0.5)
    assert_gradcheck(loss)
    assert_pairs_are_independent(loss)
    assert_output_is_well_formed(loss)


@pytest.mark.parametrize(
    ("beta", "ratio", "value"), [(0.1, 5.0, 0.9190), (0.1, 0.3, 0.6636), (2.0, 0.5, 0.3711), (2.5, 0.55, 0.3484)]
)
def test_simpo_defaults_of_peers_differ(beta, ratio, value):
    """Four systems' default settings of "simpo" on one pair; only the last is one that the paper's authors released."""
    found = call(SimPOLoss(beta=beta, gamma_beta_ratio=ratio), pairs(ONE)).values
    assert found.item() == pytest.approx(value, abs=5e-5)


def test_simpo_has_no_defaults():
    with pytest.raises(TypeError, match=r"beta.*gamma_beta_ratio"):
        SimPOLoss()
    with pytest.raises(InputError, match="gamma_beta_ratio"):
        resolve({"loss": {"name": "simpo", "beta": 2.5}, "kl": "none", "references": "none"})


def test_spec_is_the_authors_llama_3_setting():
    assert resolve("simpo").loss.args == {"beta": 2.5, "gamma_beta_ratio": 0.55}


def test_needs_no_reference_and_a_reference_beside_it_is_an_error():
    bare = {name: values for name, values in random_data().items() if not name.startswith("ref")}
    assert call(SimPOLoss(beta=2.0, gamma_beta_ratio=0.5), pairs(bare)).values.isfinite().all()
    spec = {
        "loss": {"name": "simpo", "beta": 2.5, "gamma_beta_ratio": 0.5},
        "kl": "none",
        "references": {"ref": "base"},
    }
    with pytest.raises(InputError, match="ref"):
        resolve(spec)


def test_is_dpo_with_a_uniform_reference_at_equal_lengths_without_margin():
    data, length, beta = random_data(), 12, 2.0
    data["len_chosen"] = data["len_rejected"] = [length] * 7
    data["ref_chosen"] = data["ref_rejected"] = [-length * 10.8] * 7
    simpo = call(SimPOLoss(beta=beta, gamma_beta_ratio=0.0), pairs(data)).values
    torch.testing.assert_close(simpo, call(DPOLoss(), pairs(data), beta / length).values)


def test_repeating_a_completion_changes_nothing():
    data = random_data()
    once = call(SimPOLoss(beta=2.0, gamma_beta_ratio=0.5), pairs(data)).values
    for name in ("policy_chosen", "len_chosen"):
        data[name] = [2 * value for value in data[name]]
    torch.testing.assert_close(call(SimPOLoss(beta=2.0, gamma_beta_ratio=0.5), pairs(data)).values, once)


def test_gamma_is_given_as_a_ratio_to_beta():
    """With gamma itself in its place (beta times too small) the loss would be smaller."""
    beta, gamma = 2.5, 1.375
    margin = column([-30 / 20 + 12 / 5])
    expected = -torch.nn.functional.logsigmoid(beta * margin - gamma)
    torch.testing.assert_close(call(SimPOLoss(beta=beta, gamma_beta_ratio=gamma / beta), pairs(ONE)).values, expected)
