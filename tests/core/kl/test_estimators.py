from __future__ import annotations

import math

import pytest
import torch

from nashtune.kl.estimators import policy_entropy, sampled_kl, token_entropy, token_kl, with_token_kl


def test_token_kl_is_the_sum_over_the_vocabulary() -> None:
    policy = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]], dtype=torch.float64).log()
    ref = torch.tensor([[0.25, 0.25, 0.5], [0.2, 0.3, 0.5]], dtype=torch.float64).log()
    expected = 0.5 * math.log(2.0) + 0.25 * math.log(0.5)
    assert token_kl(policy + 3.0, ref - 7.0).tolist() == pytest.approx([expected, 0.0], abs=1e-12)


def test_token_entropy_is_the_sum_over_the_vocabulary() -> None:
    certain, even, two = [0.0, -math.inf, -math.inf], [3.0, 3.0, 3.0], [math.log(0.25), math.log(0.75), -math.inf]
    found = token_entropy(torch.tensor([certain, even, two], dtype=torch.float64))
    of_two = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert found.tolist() == pytest.approx([0.0, math.log(3.0), of_two], abs=1e-12)


def test_estimators_agree_with_the_exact_kl_on_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    policy = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64).log()
    ref = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64).log()
    drawn = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=generator)
    exact = float(token_kl(policy[None], ref[None]))
    k1, k3 = sampled_kl(policy[drawn], ref[drawn])
    assert k1 == pytest.approx(exact, abs=5e-3)
    assert k3 == pytest.approx(exact, abs=5e-3)


def test_k3_is_never_negative_where_k1_is() -> None:
    k1, k3 = sampled_kl(torch.tensor([-5.0, -4.0]), torch.tensor([-4.0, -3.9]))
    assert k1 < 0 < k3


def test_controller_statistics_and_kl_come_from_one_pass() -> None:
    calls = []

    def controller(policy: torch.Tensor, ref: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(len(targets))
        return {"own": targets.double()}

    logits, targets = torch.randn(4, 7), torch.arange(4)
    both = with_token_kl(controller, True)(logits, logits, targets)
    assert set(both) == {"own", "token_kl", "entropy"} and calls == [4]
    assert set(with_token_kl(None, True)(logits, logits, targets)) == {"token_kl", "entropy"}
    assert torch.equal(policy_entropy(logits, logits, targets)["entropy"], both["entropy"])
    assert set(with_token_kl(controller, False)(logits, logits, targets)) == {"own"}
