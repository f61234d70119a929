"""PPO: published numbers of rewards, advantages, losses and gradients, through the specs' own vectors flow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from nashtune.errors import InputError
from nashtune.evaluation.vectors import evaluate
from nashtune.interfaces import Step
from nashtune.spec.resolve import resolve
from nashtune_plugins.ppo import PPOLoss, explained_variance, value_loss
from rl_batches import joined, prepared, random_rollouts
from rl_numbers import BASE, CRITIC, OLD, SCORE

A = [[1.23457625, 1.067975, 1.2505, 0.99], [-0.2187625, -0.41975, -0.905]]
RETURNS = [[1.33457625, 1.367975, 1.4505, 1.49], [-0.4187625, -0.41975, -0.505]]
WHITE = {
    "population": [
        [0.956981162255, 0.759189262571, 0.975886115024, 0.666615987293],
        [-0.768447862117, -1.007063715466, -1.583160949560],
    ],
    "bessel": [
        [0.885992396011, 0.702872679527, 0.903494981288, 0.617166480487],
        [-0.711444477092, -0.932359830469, -1.465722229753],
    ],
}


def run(loss: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    case = {
        "params": {"loss": loss, "kl": {"name": "fixed", "beta": 0.1}},
        "inputs": {**BASE, **CRITIC, **inputs},
    }
    result = evaluate(resolve("ppo"), case)
    return {**result.further, **result.outputs}


def near(value: list[list[float]], tolerance: float = 2e-12) -> Any:
    return [pytest.approx(row, abs=tolerance) for row in value]


@pytest.mark.parametrize("how", WHITE)
def test_published_advantages(how):
    raw = run({"whiten_advantages": "none"})
    assert raw["advantage"] == near(A) and raw["target"] == near(RETURNS)
    white = run({"whiten_advantages": how})
    assert white["advantage"] == near(WHITE[how]) and white["target"] == near(RETURNS)


def test_published_loss_and_gradients():
    found = run({})
    assert found["mean_policy_loss"] == pytest.approx(0.051545783626, abs=1e-12)
    assert found["mean_value_loss"] == pytest.approx(0.406967211543, abs=1e-12)
    assert found["objective"] == pytest.approx(0.092242504780, abs=1e-12)
    assert found["mean_clip_fraction"] == pytest.approx(1 / 7) and found["mean_ratio"] > 1.0
    assert found["mean_approx_kl"] == pytest.approx(0.020892857143, abs=1e-12)
    assert found["grad_objective_policy"] == near(
        [
            [-0.151089678524, 0.0, -0.103279173617, -0.095230855328],
            [0.099331482779, 0.194199118016, 0.237761621026],
        ]
    )
    assert found["grad_objective_value"] == near(
        [[0.0, -0.015971071429, -0.018578571429, 0.0], [0.00455375, 0.0, 0.013642857143]]
    )


def test_published_loss_with_bessels_variance():
    found = run({"whiten_advantages": "bessel"})
    assert found["mean_policy_loss"] == pytest.approx(0.047722122587, abs=1e-12)
    assert found["objective"] == pytest.approx(0.088418843742, abs=1e-12)


def test_published_advantages_with_the_score_after_eos():
    """The first completion reached the limit and has no state of its own after it."""
    end = {"finished": [False, True], "old_value_end": [0.0, 0.25]}
    raw = run({"whiten_advantages": "none", "score_at": "after_eos"}, **end)
    assert raw["advantage"] == near([A[0], [-0.18491875, -0.384125, -0.8675]])
    white = run({"whiten_advantages": "bessel", "score_at": "after_eos"}, **end)
    assert white["advantage"] == near(
        [
            [0.887438077044, 0.700475175273, 0.905307994029, 0.612970235990],
            [-0.705544594155, -0.929097409941, -1.471549478241],
        ]
    )
    assert raw["target_end"] == [0.0, -0.5]


def test_the_state_after_eos_is_learnt_too():
    found = run(
        {"score_at": "after_eos", "value_clip": None, "vf_coef": 0.5},
        finished=[False, True],
        old_value_end=[9.0, 0.25],
        value_end=[9.0, 0.4],
    )
    assert found["grad_value_end"] == pytest.approx([0.0, 0.5 * (0.4 + 0.5)])


def test_after_eos_rewards_are_whitened_together_with_those_of_the_tokens():
    loss = {"score_at": "after_eos", "whiten_rewards": "population", "whiten_advantages": "none", "gamma": 0.0}
    zeros = [[0.0] * 4, [0.0] * 3]
    found = run({**loss, "lam": 0.0}, finished=[False, True], old_value_end=[0.0, 0.0], old_value=zeros, value=zeros)
    rewards = torch.tensor([0.02, -0.02, 0.01, 1.49, -0.02, 0.04, -0.005, -0.5], dtype=torch.float64)
    wanted = (rewards - rewards.mean()) / (rewards.var(correction=0) + 1e-8).sqrt() + rewards.mean()
    assert [*found["advantage"][0], *found["advantage"][1], found["target_end"][1]] == pytest.approx(wanted.tolist())


def test_after_eos_needs_its_inputs():
    with pytest.raises(InputError, match=r"score_at: after_eos needs .*use score_at: last"):
        run({"score_at": "after_eos"})


def test_at_the_first_step_of_the_first_pass():
    found = run({}, policy=OLD, value=CRITIC["old_value"])
    assert found["mean_ratio"] == 1.0 and found["mean_clip_fraction"] == 0.0 and found["mean_approx_kl"] == 0.0
    assert found["grad_objective_policy"] == near([[-x / 7 for x in row] for row in WHITE["population"]])


def test_the_critic_is_clipped_both_ways():
    old = torch.zeros(4, dtype=torch.float64)
    target = torch.tensor([1.0, 1.0, -1.0, 0.1], dtype=torch.float64)
    value = torch.tensor([0.5, -0.5, 0.5, 0.15], dtype=torch.float64, requires_grad=True)
    found = value_loss(value, old, target, 0.2)
    assert found.tolist() == pytest.approx([0.32, 1.125, 1.125, 0.00125])  # clipped, free, free, inside
    (grad,) = torch.autograd.grad(found.sum(), value)
    assert grad.tolist() == pytest.approx([0.0, -1.5, 1.5, 0.05])
    assert value_loss(value, old, target, None).tolist() == pytest.approx([0.125, 1.125, 1.125, 0.00125])


def test_explained_variance():
    target = torch.tensor([1.0, 2.0, 4.0])
    assert float(explained_variance(target, target)) == 1.0
    assert float(explained_variance(target, torch.full((3,), 9.0))) == pytest.approx(0.0)
    assert float(explained_variance(torch.ones(3), target)) == 0.0
    assert float(explained_variance(target, -target)) == pytest.approx(-3.0)


def test_beta_per_completion_is_the_only_change_that_a_controller_of_variances_makes():
    """With the same β for all it is PPO, bit for bit."""
    loss, batch = PPOLoss(), random_rollouts(0, [4, 2, 5])
    scalar, each = (prepared(loss, batch, beta)[0] for beta in (0.3, [0.3, 0.3, 0.3]))
    assert torch.equal(scalar.advantage, each.advantage) and torch.equal(scalar.target, each.target)
    first, second = prepared(PPOLoss(lam=1.0, whiten_advantages="none"), batch, [0.3, 0.3, 0.6])[0], scalar
    assert second.advantage is not None and first.advantage is not None
    plain = prepared(PPOLoss(lam=1.0, whiten_advantages="none"), batch, 0.3)[0].advantage
    assert torch.equal(first.advantage[:6], plain[:6]) and bool((first.advantage[6:] != plain[6:]).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_is_well_formed(dtype):
    batch = random_rollouts(0, [3, 2])
    cast = {n: v.to(dtype) for n, v in vars(batch).items() if torch.is_tensor(v) and v.is_floating_point()}
    batch = replace(batch, **cast, anchors={"ref": batch.anchors["ref"].to(dtype)})
    loss = PPOLoss()
    made = loss.advantages(batch, Step(beta=torch.tensor(0.1)))
    assert made.advantage.dtype == dtype and made.target.dtype == dtype
    output = loss(replace(batch, advantage=made.advantage, target=made.target), Step(beta=torch.tensor(0.1)))
    assert output.values.shape == (2,) and output.values.dtype == dtype and output.values.requires_grad
    assert output.reward_chosen is None and set(output.metrics) == {
        *("policy_loss", "value_loss", "ratio", "ratio_max", "clip_fraction", "approx_kl")
    }
    assert all(value.dtype == dtype and not value.requires_grad for value in output.metrics.values())


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="no_eos_score replaces the score"):
        PPOLoss(no_eos_score=-1.0, no_eos_penalty=1.0)


def test_where_the_critic_starts_is_an_argument():
    assert PPOLoss().critic_init == "zero" and PPOLoss(value_init="reward_model").critic_init == "reward_model"
    assert PPOLoss.uses_values and PPOLoss.uses_old and PPOLoss().mean_over == "tokens"


def test_the_published_inputs_are_these():
    assert joined(OLD).sum().item() == pytest.approx(-7.2) and SCORE == [1.5, -0.5]
