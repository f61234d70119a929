from __future__ import annotations

import pytest
import torch

from nashtune.rl.whitening import whiten
from rl_batches import joined

A = joined([[1.23457625, 1.067975, 1.2505, 0.99], [-0.2187625, -0.41975, -0.905]])
R = joined([[0.02, -0.02, 0.01, 1.49], [-0.02, 0.04, -0.505]])
ADVANTAGES = {
    "population": [
        [0.956981162255, 0.759189262571, 0.975886115024, 0.666615987293],
        [-0.768447862117, -1.007063715466, -1.583160949560],
    ],
    "bessel": [
        [0.885992396011, 0.702872679527, 0.903494981288, 0.617166480487],
        [-0.711444477092, -0.932359830469, -1.465722229753],
    ],
}
REWARDS = {
    "population": [
        [-0.071621652047, -0.140940580702, -0.088951384211, 2.475848976028],
        [-0.140940580702, -0.036962187720, -0.981432590646],
    ],
    "bessel": [
        [-0.055552679941, -0.119729537523, -0.071596894337, 2.302946836171],
        [-0.119729537523, -0.023464251151, -0.897873935696],
    ],
}


@pytest.mark.parametrize("how", ADVANTAGES)
def test_published_numbers(how):
    assert whiten(A, how).tolist() == pytest.approx(joined(ADVANTAGES[how]).tolist(), abs=1e-12)
    assert whiten(R, how, keep_mean=True).tolist() == pytest.approx(joined(REWARDS[how]).tolist(), abs=1e-12)


@pytest.mark.parametrize(("how", "correction"), [("population", 0), ("bessel", 1)])
def test_the_result_has_the_moments_it_should(how, correction):
    found = whiten(A, how)
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-15)
    assert float(found.var(correction=correction)) == pytest.approx(1.0, abs=1e-7)
    assert float(whiten(R, how, keep_mean=True).mean()) == pytest.approx(float(R.mean()), abs=1e-15)


def test_equal_numbers_become_zeros():
    assert whiten(torch.full((5,), 3.7, dtype=torch.float64), "population").tolist() == pytest.approx(
        [0.0] * 5, abs=1e-9
    )


def test_none_changes_nothing_and_a_shift_is_removed():
    assert whiten(A, "none") is A
    torch.testing.assert_close(whiten(A + 100.0, "population"), whiten(A, "population"), rtol=0, atol=1e-12)


def test_float32_is_summed_in_float64():
    """A large mean over many tokens: sums in float32 would be off in the third digit."""
    noise = torch.randn(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = whiten((1000.0 + noise).float(), "population")
    exact = whiten((1000.0 + noise).float().double(), "population")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)
