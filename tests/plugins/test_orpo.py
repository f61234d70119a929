"""ORPO: -a_w - lam log sigma(log odds_w - log odds_l), a = average log-prob, log odds = a - log(1 - e^a).

Hand derivation for pair 1 of the four, lam 0.1: a_w = -2, a_l = -25/12, the log odds ratio is 0.0957701345, and
2 + 0.1 * 0.6464081650 = 2.0646408165.
"""

from __future__ import annotations

import mpmath
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
from nashtune_plugins.orpo import ORPOLoss, log_odds


def test_published_numbers():
    batch = four()
    output = call(ORPOLoss(lam=0.1), batch)
    chosen, rejected = gradients(output, batch)
    assert_digits(output.values, [2.0646408165, 2.2913857494, 2.6494086807, 2.0693147181])
    assert_digits(chosen, [-0.1055059000, -0.0661208242, -0.2136658259, -0.0440760784])
    assert_digits(rejected, [0.0045315403, 0.0041684757, 0.0102965486, 0.0019275294])
    assert_digits(output.metrics["log_odds_ratio"], [0.0957701345, -0.0653530615, -0.5319541565, 0.0])


def test_gradients_shapes_and_independence():
    assert_gradcheck(ORPOLoss(lam=0.5))
    assert_pairs_are_independent(ORPOLoss(lam=0.5))  # the authors' SFT term averages over the micro-batch's tokens
    assert_output_is_well_formed(ORPOLoss(lam=0.5))


def test_is_supervised_fine_tuning_at_lam_0():
    batch = pairs(random_data())
    output = call(ORPOLoss(lam=0.0), batch)
    torch.testing.assert_close(output.values, output.metrics["nll_chosen"])
    chosen, rejected = gradients(output, batch)
    torch.testing.assert_close(chosen, -1.0 / batch.len_chosen.double())
    assert bool((rejected == 0).all())


@pytest.mark.parametrize("mean", [-1e-12, -1e-6, -0.5, -0.6931, -0.6932, -5.0, -40.0, -700.0])
def test_log_odds_is_accurate_near_0_and_far_from_it(mean):
    with mpmath.workdps(50):
        exact = float(mpmath.mpf(mean) - mpmath.log(1 - mpmath.exp(mpmath.mpf(mean))))
    assert float(log_odds(column([mean]))[0]) == pytest.approx(exact, rel=1e-13)


def test_the_plain_formula_loses_its_digits_near_0():
    mean = column([-1e-6]).float()
    plain = mean - torch.log1p(-torch.exp(mean))
    assert abs(float(plain[0]) - 13.815510) > 1e-3 > 1e-5 > abs(float(log_odds(mean)[0]) - 13.815510)


def test_a_completion_of_probability_1_gives_no_nan():
    data = {"policy_chosen": [0.0, -1.0], "policy_rejected": [-1.0, 0.0], "len_chosen": [3, 3], "len_rejected": [2, 2]}
    batch = pairs(data, torch.float32)
    output = call(ORPOLoss(lam=0.1), batch)
    assert all(bool(value.isfinite().all()) for value in (output.values, *gradients(output, batch)))
