"""What holds for every policy-gradient loss, however an update's completions are split into micro-batches.

ppo, rloo, grpo, reinforce, with the options that change what a completion's value depends on.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nashtune.interfaces import Loss
from nashtune_plugins.grpo import GRPOLoss
from nashtune_plugins.ppo import PPOLoss
from nashtune_plugins.reinforce import REINFORCELoss
from nashtune_plugins.rloo import RLOOLoss
from rl_batches import pick, prepared, random_rollouts, rollouts, step_of, whole

LENGTHS = [5, 1, 9, 2, 3, 12, 4, 4]
GROUP = [0, 1, 0, 2, 1, 2, 0, 1]
LOSSES: dict[str, Loss] = {
    "ppo": PPOLoss(),
    "ppo, k3 in the loss": PPOLoss(kl_in="loss", kl_estimator="k3", whiten_rewards="bessel", no_eos_penalty=0.5),
    "rloo": RLOOLoss(),
    "rloo, k2 in the loss": RLOOLoss(kl_in="loss", kl_estimator="k2"),
    "grpo": GRPOLoss(),
    "grpo, dapo": GRPOLoss(reduction="dapo"),
    "grpo, dr_grpo": GRPOLoss(reduction="dr_grpo", max_length=16, scale="none"),
    "reinforce": REINFORCELoss(),
    "reinforce, to go": REINFORCELoss(returns="to_go", baseline="none", normalise="tokens"),
    "reinforce, group": REINFORCELoss(baseline="group_mean", normalise="completions"),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
BETA = torch.linspace(0.05, 0.4, 8, dtype=torch.float64)  # one per completion


def random(seed: int = 0) -> Any:
    return random_rollouts(seed, LENGTHS, GROUP)


@each_loss
@pytest.mark.parametrize("splits", [[[0], [1, 2, 3, 4, 5, 6, 7]], [[7, 0], [3, 4, 5], [1], [6, 2]]])
def test_values_and_objective_do_not_depend_on_the_split(loss, splits):
    """Unequal numbers of tokens on purpose: a mean of micro-batches' means would be another objective."""
    batch, step = prepared(loss, random(), BETA)
    leaf = batch.token_logp
    together = loss(batch, step).values
    parts = [loss(pick(batch, rows), step_of(step, rows)).values for rows in splits]
    for rows, values in zip(splits, parts, strict=True):
        assert torch.equal(values, together[torch.tensor(rows)])
    count = batch.lengths.sum() if loss.mean_over == "tokens" else len(LENGTHS)
    accumulated = sum(values.sum() / count for values in parts)
    (split_grad,) = torch.autograd.grad(accumulated, leaf, retain_graph=True)
    (grad,) = torch.autograd.grad(whole(loss, together, batch.lengths), leaf)
    torch.testing.assert_close(split_grad, grad, rtol=0, atol=1e-15)


@each_loss
def test_metrics_do_not_depend_on_the_split(loss):
    """What is logged is a sum over completions, or tokens, divided by their number."""
    batch, step = prepared(loss, random(), BETA)
    together = loss(batch, step).metrics
    halves = [loss(pick(batch, rows), step_of(step, rows)).metrics for rows in ([0, 1, 2], [3, 4, 5, 6, 7])]
    for name, values in together.items():
        assert len(values) in (8, sum(LENGTHS)) and not values.requires_grad
        parts = torch.cat([half[name] for half in halves])
        torch.testing.assert_close(parts.mean(), values.mean(), rtol=0, atol=1e-14)


@each_loss
def test_the_order_of_completions_does_not_matter(loss):
    order = [3, 7, 0, 5, 1, 6, 2, 4]
    batch, step = prepared(loss, random(), BETA)
    shuffled, their_step = prepared(loss, pick(random(), order), BETA[torch.tensor(order)])
    torch.testing.assert_close(shuffled.advantage, pick(batch, order).advantage, rtol=0, atol=1e-13)
    values = loss(shuffled, their_step).values
    torch.testing.assert_close(values, loss(batch, step).values[torch.tensor(order)], rtol=0, atol=1e-12)


@each_loss
def test_at_the_first_step_the_gradient_is_minus_the_advantage(loss):
    """rho = 1: nothing is clipped, and each token pulls by its advantage."""
    made = random()
    batch, step = prepared(loss, rollouts_at_start(made), torch.tensor(0.0))
    output = loss(batch, step)
    (grad,) = torch.autograd.grad(output.values.sum(), batch.token_logp)
    scale = {"grpo": batch.lengths[batch.sequence].double()}.get(getattr(loss, "reduction", ""), torch.tensor(1.0))
    if getattr(loss, "reduction", "") == "dr_grpo":
        scale = torch.tensor(16.0)
    torch.testing.assert_close(grad * scale, -batch.advantage, rtol=0, atol=1e-14)
    if "ratio" in output.metrics:
        assert set(output.metrics["ratio"].tolist()) == {1.0}
        assert not output.metrics["clip_fraction"].any() and not output.metrics["approx_kl"].any()


def rollouts_at_start(batch: Any) -> Any:
    from dataclasses import replace

    return replace(batch, token_logp=batch.old.clone().requires_grad_(), value=batch.old_value.clone())


@each_loss
def test_nothing_that_was_known_before_the_update_carries_gradient(loss):
    batch, step = prepared(loss, random(), BETA)
    assert not batch.advantage.requires_grad
    assert batch.target is None or not batch.target.requires_grad
    values = loss(batch, step).values
    assert values.shape == (8,) and values.requires_grad


@pytest.mark.parametrize("kind", ["rloo", "grpo", "reinforce, group"])
def test_a_constant_on_all_scores_changes_nothing(kind):
    from dataclasses import replace

    batch = random()
    shifted = replace(batch, score=batch.score + 8.0)
    first, second = (prepared(LOSSES[kind], one, BETA)[0].advantage for one in (batch, shifted))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-13)


def test_a_constant_on_all_scores_leaves_ppos_whitened_advantages_but_for_the_edge():
    """With lambda 1 and completions of one length it is removed exactly; else what is left is GAE's decay."""
    from dataclasses import replace

    batch = random_rollouts(0, [4] * 6)
    for lam, tolerance in ((1.0, 1e-12), (0.95, 0.5)):
        loss = PPOLoss(lam=lam)
        shifted = replace(batch, score=batch.score + 1.0)
        first, second = (prepared(loss, one)[0].advantage for one in (batch, shifted))
        assert float((first - second).abs().max()) < tolerance


@pytest.mark.parametrize("kind", ["rloo", "grpo", "reinforce, group"])
def test_another_prompt_beside_it_changes_no_bit(kind):
    loss = LOSSES[kind]
    rows = [0, 2, 6]  # the completions of prompt 0
    together = pick(prepared(loss, random(), BETA)[0], rows).advantage
    alone = prepared(loss, pick(random(), rows), BETA[torch.tensor(rows)])[0].advantage
    if kind == "reinforce, group":  # its scale is that of all completions of the round
        together, alone = together / together[0], alone / alone[0]
        torch.testing.assert_close(together, alone, rtol=1e-14, atol=0)
    else:
        assert torch.equal(together, alone)


@pytest.mark.parametrize("value", [0.1, 0.0, -3.3, 1e30])
@pytest.mark.parametrize("kind", ["rloo", "grpo", "grpo, dapo", "reinforce, group"])
def test_equal_rewards_give_no_advantage_and_are_counted(kind, value):
    loss = LOSSES[kind]
    batch = rollouts([[-1.0, -0.5], [-2.0], [-0.3]] * 2, [[-1.0, -0.5], [-2.0], [-0.3]] * 2, group=[0, 0, 0, 1, 1, 1],
                     score=[value] * 3 + [1.0, 2.0, 4.0], old=[[-1.0, -0.5], [-2.0], [-0.3]] * 2)  # fmt: skip
    ready, step = prepared(loss, batch)
    assert ready.advantage[:4].tolist() == [0.0] * 4 and bool(torch.isfinite(ready.advantage).all())
    assert bool(ready.advantage[4:].any())
    assert bool(torch.isfinite(loss(ready, step).values).all())
    assert float(loss.advantages(batch, step).metrics["equal_groups"]) == 1.0


def test_when_all_rewards_are_equal_nothing_moves():
    for kind in ("ppo", "rloo", "grpo", "reinforce", "reinforce, to go", "reinforce, group"):
        logp = [[-1.0, -0.5], [-2.0], [-0.3], [-0.7, -0.1]]
        batch = rollouts(logp, logp, old=logp, score=[0.3] * 4, group=[0, 0, 1, 1],
                         old_value=[[0.0, 0.0], [0.0], [0.0], [0.0, 0.0]],
                         value=[[0.0, 0.0], [0.0], [0.0], [0.0, 0.0]])  # fmt: skip
        loss = PPOLoss(lam=1.0) if kind == "ppo" else LOSSES[kind]
        ready, step = prepared(loss, batch)
        (grad,) = torch.autograd.grad(loss(ready, step).values.sum(), ready.token_logp)
        assert float(grad.abs().max()) < 1e-7, kind
