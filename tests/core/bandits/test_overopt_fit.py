from __future__ import annotations

import math

import numpy as np
import pytest

from nashtune.bandits.overopt_fit import fit, gold_of, peak_of
from nashtune.errors import InputError
from nashtune.samplers.best_of_n_theory import kl_upper


def test_best_of_n_law():
    d = np.sqrt([kl_upper(n) for n in (2, 16, 1000, 60000)])
    assert d == pytest.approx([0.4394851312, 1.3546544659, 2.4307931378, 3.1626122917], abs=1e-10)
    found = gold_of("best_of_n", d, 1.5, 0.2)
    assert found == pytest.approx([0.6205982607, 1.6649639545, 2.4644386510, 2.7434951360], abs=1e-10)
    assert peak_of("best_of_n", 1.5, 0.2) == pytest.approx((3.75, 2.8125), abs=1e-12)


def test_reinforcement_learning_law():
    d = np.sqrt([1.0, 4.0, 16.0, 100.0, 400.0])
    found = gold_of("rl", d, 0.6, 0.2)
    assert found == pytest.approx([0.6, 0.9227411278, 1.2909645111, 1.3948298140, 0.0170709058], abs=1e-10)
    assert peak_of("rl", 0.6, 0.2) == pytest.approx((7.3890560989, 1.4778112198), abs=1e-10)
    zero = np.array([math.exp(3.0)])
    assert zero[0] == pytest.approx(20.0855369232, abs=1e-10)
    assert gold_of("rl", zero, 0.6, 0.2)[0] == pytest.approx(0.0, abs=1e-12)


def test_iterated_reward_models_gain_beta_d_log_k():
    d = np.array([3.0])
    assert gold_of("rl", d, 0.6, 0.2)[0] == pytest.approx(1.1408326268, abs=1e-10)
    assert gold_of("rl", d, 0.6, 0.2, refreshes=4)[0] == pytest.approx(1.9726092435, abs=1e-10)


def test_fits_of_noisy_points():
    random = np.random.default_rng(0)
    d = np.linspace(0.2, 3.0, 15)
    found = fit("best_of_n", d, d * (1.5 - 0.35 * d) + 0.02 * random.standard_normal(15))
    assert (found.alpha, found.beta) == pytest.approx((1.5113446548, 0.3569305745), abs=1e-10)
    assert found.rmse == pytest.approx(0.0146349502, abs=1e-10)
    assert abs(found.alpha - 1.5) < 3 * found.alpha_error and abs(found.beta - 0.35) < 3 * found.beta_error
    d = np.linspace(0.5, 12.0, 15)
    found = fit("rl", d, d * (0.6 - 0.2 * np.log(d)) + 0.05 * random.standard_normal(15))
    assert (found.alpha, found.beta) == pytest.approx((0.6085943642, 0.2040115450), abs=1e-10)
    assert found.peak_seen and 0.98 < found.r2 < 1.0


def test_errors_are_those_of_repeated_fits():
    random = np.random.default_rng(1)
    d = np.linspace(0.3, 3.0, 12)
    clean = d * (1.5 - 0.35 * d)
    noisy = [fit("best_of_n", d, clean + 0.05 * random.standard_normal(12)) for _ in range(400)]
    assert np.std([one.alpha for one in noisy]) == pytest.approx(np.mean([one.alpha_error for one in noisy]), rel=0.1)
    weighted = fit("best_of_n", d, clean, error=np.full(12, 0.05))
    assert weighted.alpha_error == pytest.approx(np.std([one.alpha for one in noisy]), rel=0.1)
    assert weighted.beta_error == pytest.approx(np.std([one.beta for one in noisy]), rel=0.1)


@pytest.mark.parametrize("law", ["best_of_n", "rl"])
def test_clean_points_give_the_coefficients_back_and_may_be_extrapolated(law):
    d = np.linspace(0.3, 2.0, 6)
    found = fit(law, d, gold_of(law, d, 1.2, 0.3), error=np.linspace(0.1, 0.3, 6))
    assert (found.alpha, found.beta) == pytest.approx((1.2, 0.3), abs=1e-10)
    far = np.array([5.0])
    assert found(far) == pytest.approx(gold_of(law, far, 1.2, 0.3), abs=1e-9)
    assert not found.peak_seen or law == "best_of_n"


def test_gold_that_never_falls_has_no_peak():
    assert peak_of("best_of_n", 1.0, 0.0) == (math.inf, math.inf)
    d = np.linspace(0.3, 2.0, 6)
    assert not fit("best_of_n", d, d * (1.0 + 0.1 * d)).peak_seen


def test_too_few_points_are_refused():
    with pytest.raises(InputError, match="2 points with d > 0 do not determine"):
        fit("best_of_n", np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.5]))
