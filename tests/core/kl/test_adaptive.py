"""Ziegler's controller against sequences of its code, and what it must hold for any KL."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces import RolloutBatch
from nashtune.kl.adaptive import AdaptiveKL

STORIES = [0.148464, 0.1478305536, 0.1478305536, 0.148587446034, 0.150108981482, 0.148571865511]
SECOND = [0.198976, 0.19795724288, 0.198801860450, 0.199819725975]


def rollouts(policy: list[list[float]], ref: list[list[float]], dtype: torch.dtype = torch.float64) -> RolloutBatch:
    flat, frozen = (torch.tensor([x for tokens in part for x in tokens], dtype=dtype) for part in (policy, ref))
    lengths = torch.tensor([len(tokens) for tokens in policy])
    return RolloutBatch(
        token_logp=flat,
        sequence=torch.repeat_interleave(lengths),
        lengths=lengths,
        score=torch.zeros(len(policy), dtype=dtype),
        anchors={"ref": frozen},
    )


TWO = rollouts([[-0.5, -1.2, -0.3], [-0.9, -0.4]], [[-0.7, -1.0, -0.5], [-0.6, -0.9]])


@pytest.mark.parametrize(
    ("beta", "completions", "kls", "betas"),
    [(0.15, 512, [1, 5.5, 6, 6.6, 12, -1], STORIES), (0.2, 256, [0, 3, 7, 20], SECOND)],
)
def test_sequences_of_the_published_code(beta, completions, kls, betas):
    controller = AdaptiveKL(beta=beta, target=6.0, horizon=10000)
    found = []
    for kl in kls:
        controller.observe_round({"kl": kl}, completions)
        found.append(float(controller.beta(TWO)))
    assert found == pytest.approx(betas, abs=1e-12)


def test_a_constant_gain_does_not_count_completions():
    for completions in (1, 512):
        controller = AdaptiveKL(beta=0.1, target=6.0, gain="constant")
        controller.observe_round({"kl": 60.0}, completions)
        assert float(controller.beta(TWO)) == pytest.approx(0.1 * 1.02, abs=1e-15)


def test_it_rests_at_the_target_alone_and_is_monotone_and_bounded():
    def moved(kl):
        controller = AdaptiveKL(beta=1.0, target=6.0, horizon=1000)
        controller.observe_round({"kl": kl}, 100)
        return float(controller.beta(TWO))

    assert moved(6.0) == 1.0
    inside = [moved(6.0 * x) for x in (0.8, 0.9, 0.99, 1.0, 1.01, 1.1, 1.2)]
    assert inside == sorted(inside) and len(set(inside)) == len(inside)
    assert moved(-100.0) == inside[0] == pytest.approx(0.98) and moved(100.0) == inside[-1] == pytest.approx(1.02)


def test_the_kl_is_a_sum_over_the_tokens_under_the_policy_that_drew():
    controller = AdaptiveKL(beta=0.1)
    beta = controller.beta(TWO)
    assert controller.report(TWO, beta)["kl"].tolist() == pytest.approx([0.2, 0.2])
    later = replace(TWO, token_logp=TWO.token_logp * 2, old=TWO.token_logp)
    assert controller.report(later, beta)["kl"].tolist() == pytest.approx([0.2, 0.2])


def test_optimiser_steps_do_not_move_it():
    controller = AdaptiveKL(beta=0.1)
    controller.observe({"kl": torch.tensor(100.0)})
    assert controller.state_dict() == {"beta": 0.1}


def test_a_resumed_run_goes_on_with_its_beta_bit_for_bit():
    controller, resumed = AdaptiveKL(beta=0.1), AdaptiveKL(beta=0.1)
    controller.observe_round({"kl": 7.3}, 100)
    resumed.load_state_dict(controller.state_dict())
    for one in (controller, resumed):
        one.observe_round({"kl": 5.1}, 64)
    assert resumed.state_dict() == controller.state_dict()


def test_beta_is_a_scalar_of_float32_or_wider():
    half = rollouts([[-1.0]], [[-1.0]], torch.bfloat16)
    assert AdaptiveKL(beta=0.1).beta(half).dtype == torch.float32
    assert AdaptiveKL(beta=0.1).beta(TWO).shape == ()


def test_a_horizon_that_one_update_could_jump_over_is_refused() -> None:
    """0.2 * 512 / 102 is more than 1: beta would be 0 or below after an update far below the target."""
    AdaptiveKL(beta=0.1, horizon=103).check_round(512)
    with pytest.raises(InputError, match=r"512 completions.*give more than 102\.4"):
        AdaptiveKL(beta=0.1, horizon=102).check_round(512)
    AdaptiveKL(beta=0.1, horizon=102, gain="constant").check_round(512)
