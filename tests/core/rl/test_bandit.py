"""Expected gradients on three arms that can be enumerated: what is unbiased, what is scaled, and where ascent ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nashtune.interfaces import Loss, RolloutBatch, Step
from nashtune_plugins.grpo import GRPOLoss
from nashtune_plugins.ppo import PPOLoss
from nashtune_plugins.reinforce import REINFORCELoss
from nashtune_plugins.rloo import RLOOLoss
from rl_batches import prepared

REF = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REWARD = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
BETA = 0.5
BEST = torch.tensor([0.036666711840, 0.162559434450, 0.800773853709], dtype=torch.float64)


def arms(logp: Tensor, ref: Tensor, chosen: list[int]) -> RolloutBatch:
    """Completions of one prompt, of one token each."""
    index = torch.tensor(chosen)
    count = len(chosen)
    zeros = torch.zeros(count, dtype=torch.float64)
    return RolloutBatch(
        token_logp=logp[index],
        sequence=torch.arange(count),
        lengths=torch.ones(count, dtype=torch.long),
        score=REWARD[index],
        anchors={"ref": ref.log()[index]},
        group=torch.zeros(count, dtype=torch.long),
        old=logp.detach()[index],
        old_value=zeros,
        value=zeros,
    )


def test_the_optimum_in_closed_form():
    best = (REF.log() + REWARD / BETA).softmax(-1)
    assert best.tolist() == pytest.approx(BEST.tolist(), abs=1e-12)
    value = float((best * (REWARD - BETA * (best / REF).log())).sum())
    assert value == pytest.approx(1.306369394647, abs=1e-12)


@pytest.mark.parametrize(
    "loss", [REINFORCELoss(), REINFORCELoss(baseline="none"), PPOLoss(whiten_advantages="none", vf_coef=0.0)]
)
def test_exact_gradient_ascent_goes_to_the_optimum_at_the_known_rate(loss: Loss):
    logits = REF.log().clone()
    found = {}
    for t in range(1, 201):
        logits.requires_grad_()
        logp = logits.log_softmax(-1)
        batch, step = prepared(loss, arms(logp, REF, [0, 1, 2]), BETA)
        expected = (logp.exp().detach() * loss(batch, step).values).sum()
        (grad,) = torch.autograd.grad(expected, logits)
        logits = (logits - grad).detach()
        if t in (10, 50, 100, 200):
            p = logits.softmax(-1)
            found[t] = float((p * (p / BEST).log()).sum())
    assert found == {
        10: pytest.approx(0.029031957039, abs=1e-11),
        50: pytest.approx(6.24317939e-4, abs=1e-11),
        100: pytest.approx(3.462898e-5, abs=1e-10),
        200: pytest.approx(1.767153e-7, abs=1e-11),
    }


def expected_gradient(loss: Loss, count: int) -> Tensor:
    """Of the objective over every draw of `count` completions from p, to be ascended."""
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    logits = p.log().requires_grad_()
    logp = logits.log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for chosen in torch.cartesian_prod(*[torch.arange(3)] * count).tolist():
        batch, step = prepared(loss, arms(logp, p, chosen), BETA)
        total = total + p[torch.tensor(chosen)].prod() * loss(batch, step).values.mean()
    (grad,) = torch.autograd.grad(-total, logits)
    return grad


TRUE = [-0.3, 0.15, 0.15]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("loss", [RLOOLoss(), REINFORCELoss(baseline="leave_one_out")])
def test_leave_one_out_is_unbiased(loss, count):
    assert expected_gradient(loss, count).tolist() == pytest.approx(TRUE, abs=1e-15)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "loss", [GRPOLoss(scale="none"), REINFORCELoss(baseline="group_mean"), REINFORCELoss(baseline="batch_mean")]
)
def test_a_mean_that_holds_the_completion_itself_shrinks_the_gradient(loss, count):
    """By exactly (K - 1)/K."""
    wanted = [(count - 1) / count * x for x in TRUE]
    assert expected_gradient(loss, count).tolist() == pytest.approx(wanted, abs=1e-15)


def test_leave_one_out_is_the_group_mean_times_k_over_k_minus_one():
    logp = REF.log()
    batch = arms(logp, REF, [0, 1, 2, 2])
    step = Step(beta=torch.tensor(BETA, dtype=torch.float64))
    one, all_of_them = (loss.advantages(batch, step).advantage for loss in (RLOOLoss(), GRPOLoss(scale="none")))
    torch.testing.assert_close(one, 4 / 3 * all_of_them, rtol=0, atol=1e-15)


def test_the_weights_of_enumerated_completions_are_those_of_the_batchs_mean():
    """With every completion present and weighed by its probability the baseline is the expected reward."""
    from dataclasses import replace

    loss = REINFORCELoss()
    batch = replace(arms(REF.log(), REF, [0, 1, 2]), weight=REF)
    found = loss.advantages(batch, Step(beta=torch.tensor(BETA, dtype=torch.float64))).advantage
    assert found.tolist() == pytest.approx([-0.7, 0.3, 1.3], abs=1e-15)
