from __future__ import annotations

import pytest
import torch

from nashtune.rl.gae import discounted_to_go, gae
from rl_batches import joined

D = torch.float64
LENGTHS = torch.tensor([4, 3])
REWARD = joined([[0.02, -0.02, 0.01, 1.49], [-0.02, 0.04, -0.505]])
VALUE = joined([[0.10, 0.30, 0.20, 0.50], [-0.20, 0.00, 0.40]])


def test_published_numbers():
    found = gae(REWARD, VALUE, LENGTHS, gamma=1.0, lam=0.95)
    assert found.tolist() == pytest.approx(
        [1.23457625, 1.067975, 1.2505, 0.99, -0.2187625, -0.41975, -0.905], abs=1e-12
    )
    returns = [1.33457625, 1.367975, 1.4505, 1.49, -0.4187625, -0.41975, -0.505]
    assert (found + VALUE).tolist() == pytest.approx(returns, abs=1e-12)


def test_published_numbers_with_a_state_after_eos():
    """The second completion ended; its score -0.5 comes on a state of value 0.25."""
    reward = REWARD.index_add(0, torch.tensor([6]), torch.tensor([0.5], dtype=D))
    end = torch.tensor([0.0, 0.25], dtype=D)
    ahead = torch.tensor([0.0, -0.75], dtype=D)
    found = gae(reward, VALUE, LENGTHS, gamma=1.0, lam=0.95, end_value_S=end, end_advantage_S=ahead)
    assert found[4:].tolist() == pytest.approx([-0.18491875, -0.384125, -0.8675], abs=1e-12)
    assert torch.equal(found[:4], gae(REWARD, VALUE, LENGTHS, gamma=1.0, lam=0.95)[:4])


def test_without_a_critic_and_with_lambda_one_advantages_are_returns():
    found = gae(REWARD, torch.zeros(7, dtype=D), LENGTHS, gamma=1.0, lam=1.0)
    assert found.tolist() == pytest.approx([1.5, 1.48, 1.5, 1.49, -0.485, -0.465, -0.505], abs=1e-12)
    assert torch.equal(found, discounted_to_go(REWARD, LENGTHS, 1.0))


def test_with_lambda_one_values_telescope():
    """A_t = return to go - V_t, whatever the values of later tokens."""
    found = gae(REWARD, VALUE, LENGTHS, gamma=1.0, lam=1.0)
    assert (found + VALUE).tolist() == pytest.approx(discounted_to_go(REWARD, LENGTHS, 1.0).tolist(), abs=1e-14)


def test_with_lambda_zero_only_the_next_value_counts():
    found = gae(REWARD, VALUE, LENGTHS, gamma=0.5, lam=0.0)
    following = joined([[0.30, 0.20, 0.50, 0.0], [0.0, 0.40, 0.0]])
    assert found.tolist() == pytest.approx((REWARD + 0.5 * following - VALUE).tolist(), abs=1e-15)


def test_completions_do_not_touch():
    """Bit for bit, with any neighbours, of any lengths, in any order."""
    noise = torch.Generator().manual_seed(0)
    lengths = [5, 1, 17, 3]
    parts = [torch.randn(2, n, generator=noise) for n in lengths]
    reward, value = torch.cat(parts, dim=1)
    together = torch.split(gae(reward, value, torch.tensor(lengths), gamma=0.97, lam=0.9), lengths)
    for (alone_r, alone_v), found in zip(parts, together, strict=True):
        alone = gae(alone_r, alone_v, torch.tensor([len(alone_r)]), gamma=0.97, lam=0.9)
        assert torch.equal(alone, found)


def test_the_inputs_stay_as_they_are():
    reward, value = REWARD.clone(), VALUE.clone()
    gae(reward, value, LENGTHS, gamma=1.0, lam=0.95)
    assert torch.equal(reward, REWARD) and torch.equal(value, VALUE)
