from __future__ import annotations

import pytest
import torch

from nashtune.interfaces import ExampleBatch, PairBatch
from nashtune.kl.fixed import FixedKL


def pairs(dtype: torch.dtype) -> PairBatch:
    values = torch.zeros(3, dtype=dtype)
    return PairBatch(policy_chosen=values, policy_rejected=values, len_chosen=values, len_rejected=values)


@pytest.mark.parametrize(
    ("dtype", "wider"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_beta_is_a_scalar_of_float32_or_wider(dtype, wider):
    beta = FixedKL(beta=0.1).beta(pairs(dtype))
    assert beta.shape == ()
    assert beta.dtype == wider
    assert not beta.requires_grad
    assert beta.item() == torch.tensor(0.1, dtype=wider).item()


def test_beta_of_unpaired_examples():
    examples = ExampleBatch(policy=torch.zeros(2), length=torch.ones(2), desirable=torch.ones(2, dtype=torch.bool))
    assert FixedKL(beta=2).beta(examples).item() == 2.0


def test_beta_lies_on_the_batch_s_device():
    values = torch.zeros(3, device="meta")
    batch = PairBatch(policy_chosen=values, policy_rejected=values, len_chosen=values, len_rejected=values)
    assert FixedKL(beta=0.5).beta(batch).device.type == "meta"


def test_nothing_moves_it():
    kl = FixedKL(beta=0.1)
    kl.observe({"beta": torch.tensor(5.0)})
    assert kl.state_dict() == {}
    assert kl.beta(pairs(torch.float64)).item() == 0.1
