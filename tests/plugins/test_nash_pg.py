"""Nash-MD-PG and Nash-EMA-PG: a REINFORCE surrogate with the KL divergence of the tokens still to come.

Hand derivation for completion 1, tau 0.1: log-ratios (.2, -.2, .3), to go (.3, .1, .3), coefficients .3 - .1 times that
= (.27, .29, .27), loss .5 * .27 + 1.2 * .29 + .1 * .27 = .51.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from game_numbers import TOKENS
from nashtune.interfaces import RolloutBatch, Step
from nashtune.interfaces.schedule import START, Collect, Judge, Pair, Snapshot, Update
from nashtune_plugins.nash_pg import NashPGLoss, NashPGSchedule

COEFFICIENTS = {
    "to_go": [[0.27, 0.29, 0.27], [-0.16, -0.21], [0.07, 0.06, 0.09, 0.05]],
    "sequence": [[0.27] * 3, [-0.16] * 2, [0.07] * 4],
    "per_token": [[0.28, 0.32, 0.27], [-0.10, -0.21], [0.11, 0.07, 0.14, 0.05]],
}
LOSSES = {
    "to_go": [0.51, -0.383, 0.216],
    "sequence": [0.486, -0.368, 0.196],
    "per_token": [0.551, -0.263, 0.321],
}


def rollouts(policy: list[list[float]], ref: list[list[float]], score: list[float], dtype: Any = None) -> RolloutBatch:
    dtype = dtype or torch.float64
    lengths = torch.tensor([len(tokens) for tokens in policy])
    flat, frozen = (torch.tensor([x for tokens in part for x in tokens], dtype=dtype) for part in (policy, ref))
    return RolloutBatch(
        token_logp=flat.requires_grad_(),
        sequence=torch.arange(len(policy)).repeat_interleave(lengths),
        lengths=lengths,
        score=torch.tensor(score, dtype=dtype),
        anchors={"ref": frozen},
    )


def slope(loss: NashPGLoss, batch: RolloutBatch) -> Tensor:
    (grad,) = torch.autograd.grad(loss(batch, Step()).values.sum(), batch.token_logp)
    return grad


@pytest.mark.parametrize("kl_grad", COEFFICIENTS)
def test_published_numbers(kl_grad):
    batch = rollouts(**TOKENS)
    loss = NashPGLoss(tau=0.1, kl_grad=kl_grad)
    values = loss(batch, Step()).values.detach()
    assert values.tolist() == pytest.approx(LOSSES[kl_grad], abs=1e-12)
    assert slope(loss, batch).tolist() == pytest.approx(
        [-c for tokens in COEFFICIENTS[kl_grad] for c in tokens], abs=1e-12
    )


def test_the_mean_of_trls_form():
    values = NashPGLoss(tau=0.1, kl_grad="per_token")(rollouts(**TOKENS), Step()).values.detach()
    assert values.mean().item() == pytest.approx(0.203, abs=1e-12)


def test_completions_are_independent():
    loss, together = NashPGLoss(tau=0.1), rollouts(**TOKENS)
    values = loss(together, Step()).values
    for i in range(3):
        alone = rollouts(*([TOKENS[name][i]] for name in ("policy", "ref", "score")))
        assert torch.equal(loss(alone, Step()).values, values[i : i + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_is_well_formed(dtype):
    output = NashPGLoss(tau=0.1)(rollouts(**TOKENS, dtype=dtype), Step())
    assert output.values.shape == (3,) and output.values.dtype == dtype and output.values.requires_grad
    for value in (output.reward_chosen, output.reward_rejected, *output.metrics.values()):
        assert value.shape == (3,) and value.dtype == dtype and not value.requires_grad


def test_metrics_say_how_the_game_stands():
    output = NashPGLoss(tau=0.1)(rollouts(**TOKENS), Step())
    assert output.reward_chosen.tolist() == [0.8, 0.35, 0.6]
    assert output.reward_rejected.tolist() == pytest.approx([0.2, 0.65, 0.4])
    assert output.metrics["log_ratio"].tolist() == pytest.approx([0.3, 0.1, 0.3])
    assert output.metrics["regularised"].tolist() == pytest.approx([0.27, -0.16, 0.07])


def test_only_the_log_probs_carry_gradient():
    """Were the coefficient differentiated too, the gradient of token n would be -c_n + tau (...)."""
    batch = rollouts(**TOKENS)
    weights = torch.tensor([c for tokens in COEFFICIENTS["to_go"] for c in tokens], dtype=torch.float64)
    torch.testing.assert_close(slope(NashPGLoss(tau=0.1), batch), -weights)


def enumerate_policy(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two tokens over {0, 1}: logits of the policy with gradient (3, 2) for the contexts "", "0", "1"; of mu; P(y)."""
    noise = torch.Generator().manual_seed(seed)
    policy, ref = (torch.randn(3, 2, generator=noise, dtype=torch.float64) for _ in range(2))
    wins = torch.rand(4, generator=noise, dtype=torch.float64)
    return policy.requires_grad_(), ref, wins


def per_token(logits: Tensor) -> Tensor:
    """Log-probs of the two tokens of each of the four completions (4, 2)."""
    logp = logits.log_softmax(-1)
    return torch.stack([torch.stack([logp[0, a], logp[1 + a, b]]) for a in (0, 1) for b in (0, 1)])


@pytest.mark.parametrize("kl_grad", ["to_go", "sequence", "per_token"])
def test_the_expected_gradient_is_that_of_the_regularised_preference(kl_grad):
    """For `to_go` and `sequence`, against a fixed opponent; TRL's form is off."""
    policy, ref, wins = enumerate_policy(0)
    tau = 0.7
    logp, logmu = per_token(policy), per_token(ref)
    probabilities = logp.sum(-1).exp()
    objective = (probabilities * (wins - tau * (logp - logmu).sum(-1))).sum()
    (exact,) = torch.autograd.grad(objective, policy, retain_graph=True)
    batch = RolloutBatch(
        token_logp=logp.flatten(),
        sequence=torch.arange(4).repeat_interleave(2),
        lengths=torch.full((4,), 2),
        score=wins,
        anchors={"ref": logmu.flatten()},
    )
    values = NashPGLoss(tau=tau, kl_grad=kl_grad)(batch, Step()).values
    (found,) = torch.autograd.grad((probabilities.detach() * values).sum(), policy)
    difference = float((found + exact).abs().max())
    assert difference > 1e-2 if kl_grad == "per_token" else difference < 1e-12


def test_nothing_moves_on_average_at_the_reference_when_everything_ties():
    policy, _, _ = enumerate_policy(1)
    logp = per_token(policy)
    batch = RolloutBatch(
        token_logp=logp.flatten(),
        sequence=torch.arange(4).repeat_interleave(2),
        lengths=torch.full((4,), 2),
        score=torch.full((4,), 0.5, dtype=torch.float64),
        anchors={"ref": logp.detach().flatten()},
    )
    assert float(slope(NashPGLoss(tau=0.5), batch).abs().max()) == 0.0


def test_without_tau_it_is_reinforce_whatever_the_form():
    batch = rollouts(**TOKENS)
    found = [slope(NashPGLoss(tau=0.0, kl_grad=form), batch).tolist() for form in COEFFICIENTS]
    assert found[0] == found[1] == found[2] == pytest.approx([-0.3] * 3 + [0.15] * 2 + [-0.1] * 4)


def test_the_mixture_plays_the_live_policy_against_its_mixture_with_the_start():
    first, second = NashPGSchedule(steps=2, mixture=0.25).rounds()
    assert first == second
    assert first.policy is None and first.phases == (
        Collect(policy=None, reference_weight=0.0),
        Collect(policy=None, role="opponent", reference_weight=0.25),
        Judge(),
        Pair(),
        Update(reset=False),
    )


@pytest.mark.parametrize(("opponent", "drawn"), [("self", None), ("reference", START)])
def test_self_play_and_best_response(opponent, drawn):
    for made in NashPGSchedule(steps=2, opponent=opponent).rounds():
        assert made.phases[1] == Collect(policy=drawn, role="opponent", reference_weight=0.0)
        assert not [one for one in made.phases if isinstance(one, Snapshot)]


def test_the_averaged_opponent_is_a_running_average():
    first, second = NashPGSchedule(steps=2, opponent="ema", ema_decay=0.75).rounds()
    assert first.phases[1] == Collect(policy=START, role="opponent", reference_weight=0.0)
    assert first.phases[-1] == Snapshot(name="ema@1", average={START: 0.75, "live": 0.25})
    assert second.phases[1] == Collect(policy="ema@1", role="opponent", reference_weight=0.0)
    assert second.phases[-1] == Snapshot(name="ema@2", average={"ema@1": 0.75, "live": 0.25})


def test_the_formula_as_quoted_holds_on_to_the_start():
    rounds = NashPGSchedule(steps=3, opponent="ema", ema_decay=0.999, ema_of="start").rounds()
    assert rounds[2].phases[-1] == Snapshot(name="ema@3", average={START: 0.999, "live": 1 - 0.999})
