"""Uncertainty-aware RLHF: a KL coefficient per completion from the variance of its reward.

Hand derivation for the third completion of the ensemble below, clipped v: mean of s2 = (1/60 + 1/30 + 1.57333)/3 =
.541111, v = 1.573333/.541111 = 2.907598, h = 1.1, shaped return 1.1 - .1 * 2.907598 * 1.1 = .780164.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from method_batches import assert_gradcheck, call, four, gradients, pairs
from nashtune.errors import InputError
from nashtune.interfaces import KLController, Loss, RolloutBatch, Step
from nashtune.kl.fixed import FixedKL
from nashtune_plugins.dpo import DPOLoss
from nashtune_plugins.ppo import PPOLoss
from nashtune_plugins.reinforce import REINFORCELoss
from nashtune_plugins.rloo import RLOOLoss
from nashtune_plugins.uncertainty_rlhf import UncertaintyPairwiseLoss, VarianceWeightedKL, group_centred

HEADS = [[0.8, -0.2, 1.5], [1.0, 0.1, -0.5], [0.9, -0.1, 2.5], [0.7, 0.2, 0.9]]
POLICY = [[-0.5, -1.2, -0.3], [-0.9, -0.4], [-0.2, -0.8, -1.1]]
REF = [[-0.7, -1.0, -0.4], [-0.6, -0.9], [-0.9, -1.0, -1.3]]
V = [0.1, 0.1, 2.9075975359]
SHAPED = {
    "vanilla": [0.84, -0.02, 0.99],
    "raw": [0.8498333333, -0.0006666667, 0.9269333333],
    "clipped": [0.849, -0.002, 0.7801642711],
    "exact": [0.839, -0.012, 0.4894045175],
}


def column(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rollouts(
    policy: list[list[float]], ref: list[list[float]], score: Tensor, variance: Tensor | None, **more: Any
) -> RolloutBatch:
    flat, frozen = (column([x for tokens in part for x in tokens]) for part in (policy, ref))
    lengths = torch.tensor([len(tokens) for tokens in policy])
    given = {"group": torch.zeros(len(policy), dtype=torch.long), "old": flat, **more}
    return RolloutBatch(
        token_logp=flat,
        sequence=torch.repeat_interleave(lengths),
        lengths=lengths,
        score=score,
        anchors={"ref": frozen},
        variance=variance,
        **given,
    )


def three(**more: Any) -> RolloutBatch:
    heads = column(HEADS)
    return rollouts(POLICY, REF, heads.mean(0), heads.var(0), **more)


def random_rollouts(count: int = 8, seed: int = 0, variance: float | None = None) -> RolloutBatch:
    """Completions of two prompts, in turn, with a critic's values."""
    noise = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 6, (count,), generator=noise).tolist()

    def tokens() -> list[list[float]]:
        return [(-2 * torch.rand(size, generator=noise, dtype=torch.float64)).tolist() for size in sizes]

    score = torch.randn(count, generator=noise, dtype=torch.float64)
    spread = torch.rand(count, generator=noise, dtype=torch.float64) + 0.05
    values = torch.randn(sum(sizes), generator=noise, dtype=torch.float64)
    return rollouts(
        tokens(),
        tokens(),
        score,
        spread if variance is None else torch.full_like(score, variance),
        group=torch.arange(count) % 2,
        old_value=values,
        finished=torch.ones(count, dtype=torch.bool),
    )


def prepared(batch: RolloutBatch, loss: Loss, kl: KLController) -> tuple[RolloutBatch, Tensor]:
    """What training does before an update: β, reward, advantages; and β."""
    beta = kl.beta(batch)
    made = loss.advantages(replace(batch, score=kl.reward(batch, beta)), Step(beta=beta))
    assert made is not None
    return replace(batch, advantage=made.advantage, target=made.target), beta


def returns(kl: KLController, batch: RolloutBatch) -> list[float]:
    """Shaped return of each completion."""
    made, _ = prepared(batch, REINFORCELoss(baseline="none"), kl)
    assert made.advantage is not None
    first = batch.lengths.cumsum(0) - batch.lengths
    return made.advantage[first].tolist()


# Published numbers


def test_variance_and_its_normalisation():
    controller = VarianceWeightedKL(v_min=0.0, v_max=100.0)
    batch = three()
    assert batch.variance.tolist() == pytest.approx([1 / 60, 1 / 30, 1.5733333333], abs=1e-10)
    assert controller.v(batch).tolist() == pytest.approx([0.0308008214, 0.0616016427, V[2]], abs=1e-10)
    controller = VarianceWeightedKL()
    assert controller.v(batch).tolist() == pytest.approx(V, abs=1e-10)
    assert controller.beta(batch).tolist() == pytest.approx([v / 10 for v in V], abs=1e-11)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (FixedKL(beta=0.1), SHAPED["vanilla"]),
        (VarianceWeightedKL(normalise="none"), SHAPED["raw"]),
        (VarianceWeightedKL(), SHAPED["clipped"]),
        (VarianceWeightedKL(variant="exact"), SHAPED["exact"]),
    ],
)
def test_shaped_returns(kl, expected):
    assert returns(kl, three()) == pytest.approx(expected, abs=1e-10)


def test_reinforce_against_the_batch_mean():
    loss = REINFORCELoss(baseline="batch_mean")
    batch, beta = prepared(three(), loss, VarianceWeightedKL())
    leaf = batch.token_logp.clone().requires_grad_()
    output = loss(replace(batch, token_logp=leaf), Step(beta=beta))
    assert output.values.tolist() == pytest.approx([0.6132238193, -0.7077045175, 0.4993299795], abs=1e-10)
    (grad,) = torch.autograd.grad(output.values.sum(), leaf)
    advantage = [0.3066119097, -0.5443880903, 0.2377761807]
    assert grad.tolist() == pytest.approx([-advantage[i] for i in batch.sequence], abs=1e-10)


def test_token_rewards():
    """Returns to go of neighbouring tokens differ by the reward of the first."""
    made, _ = prepared(three(), REINFORCELoss(baseline="none", returns="to_go"), VarianceWeightedKL())
    first, _, third = (part.tolist() for part in torch.split(made.advantage, [3, 2, 3]))
    found = [[a - b for a, b in zip(row, [*row[1:], 0.0], strict=True)] for row in (first, third)]
    assert found[0] == pytest.approx([-0.002, 0.002, 0.849], abs=1e-10)
    assert found[1] == pytest.approx([-0.2035318275, -0.0581519507, 1.0418480493], abs=1e-10)


def test_the_penalty_in_the_loss():
    loss = REINFORCELoss(baseline="none", kl_in="loss", kl_estimator="k3")
    batch, beta = prepared(three(), loss, VarianceWeightedKL())
    leaf = batch.token_logp.clone().requires_grad_()
    free = replace(batch, token_logp=leaf, advantage=torch.zeros_like(leaf))
    output = loss(free, Step(beta=beta))
    assert output.values.tolist() == pytest.approx([0.0004497093, 0.0015638947, 0.0680513928], abs=1e-10)
    (grad,) = torch.autograd.grad(output.values.sum(), leaf)
    assert grad.tolist() == pytest.approx(
        [
            *(0.0018126925, -0.0022140276, 0.0009516258, -0.0034985881, 0.0039346934),
            *(0.1463727330, 0.0527058016, 0.0527058016),
        ],
        abs=1e-10,
    )


def pair_batch(chosen: list[int], rejected: list[int]) -> Any:
    sums = {name: [sum(tokens) for tokens in part] for name, part in (("policy", POLICY), ("ref", REF))}
    variance = column(HEADS).var(0)
    data = {
        f"{name}_{side}": [values[i] for i in picked]
        for name, values in sums.items()
        for side, picked in (("chosen", chosen), ("rejected", rejected))
    }
    return pairs(data, variance_chosen=variance[chosen], variance_rejected=variance[rejected])


def test_pairs():
    batch = pair_batch([0, 2, 0], [1, 1, 2])
    output = UncertaintyPairwiseLoss()(batch, Step(beta=VarianceWeightedKL().beta(batch)))
    assert output.values.tolist() == pytest.approx([0.6936473056, 0.5468039644, 0.8652186119], abs=1e-10)
    logits = (output.reward_chosen - output.reward_rejected).tolist()
    assert logits == pytest.approx([-0.001, 0.3178357290, -0.3188357290], abs=1e-10)
    chosen, rejected = gradients(output, batch)
    assert chosen.tolist() == pytest.approx([-0.0050025, -0.1224689641, -0.0057904048], abs=1e-10)
    assert rejected.tolist() == pytest.approx([0.0050025, 0.0042120328, 0.1683616685], abs=1e-10)
    plain = call(UncertaintyPairwiseLoss(), batch, beta=0.1)
    assert plain.values.tolist() == pytest.approx([0.6981596805, 0.6491593390, 0.7443966601], abs=1e-10)


# What it reduces to


@pytest.mark.parametrize("loss", [PPOLoss(), RLOOLoss(), REINFORCELoss()], ids=["ppo", "rloo", "reinforce"])
@pytest.mark.parametrize("variant", ["detached", "exact"])
def test_with_one_variance_for_all_it_is_the_ordinary_method_step_for_step(loss, variant):
    """Three updates, with the running mean carried along: advantages, losses and gradients of each step."""
    aware, plain = VarianceWeightedKL(beta=0.2, variant=variant), FixedKL(beta=0.2)
    for seed in range(3):
        batch = random_rollouts(seed=seed, variance=0.3)
        found, ordinary = (prepared(batch, loss, kl) for kl in (aware, plain))
        if variant == "detached" or not isinstance(loss, PPOLoss):  # `exact` shifts what the critic learns
            torch.testing.assert_close(found[0].advantage, ordinary[0].advantage, rtol=0, atol=1e-12)
            for number in range(2):
                moved = batch.token_logp + 0.1 * number
                values = [step(loss, made, beta, moved) for made, beta in (found, ordinary)]
                torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-12)
        report = aware.report(batch, found[1])
        aware.observe_round({name: float(value.mean()) for name, value in report.items()}, len(batch.score))


def step(loss: Loss, batch: RolloutBatch, beta: Tensor, moved: Tensor) -> Tensor:
    leaf = moved.clone().requires_grad_()
    output = loss(replace(batch, token_logp=leaf, value=batch.old_value), Step(beta=beta))
    (grad,) = torch.autograd.grad(output.values.sum(), leaf)
    return torch.cat([output.values.detach(), grad])


@pytest.mark.parametrize("variant", ["detached", "exact", "precision"])
def test_a_constant_v_is_beta_times_that_constant(variant):
    """Unnormalised, at v = c: the ordinary advantages at β c; `precision` has the rewards divided by c besides."""
    batch, constant = random_rollouts(variance=3.0), 3.0
    loss = RLOOLoss()
    found, _ = prepared(batch, loss, VarianceWeightedKL(beta=0.1, variant=variant, normalise="none"))
    plain, _ = prepared(batch, loss, FixedKL(beta=0.1 * constant))
    scale = constant if variant == "precision" else 1.0
    torch.testing.assert_close(found.advantage * scale, plain.advantage, rtol=0, atol=1e-12)


def test_pairs_with_one_beta_are_dpo_bit_for_bit():
    batch = four(p_chosen=column([1.0, 0.9, 0.5, 0.2]))
    ours, dpo = (call(loss, batch, beta=0.1) for loss in (UncertaintyPairwiseLoss(), DPOLoss()))
    assert torch.equal(ours.values, dpo.values) and torch.equal(ours.reward_chosen, dpo.reward_chosen)
    assert all(torch.equal(a, b) for a, b in zip(gradients(ours, batch), gradients(dpo, batch), strict=True))


def test_pairs_of_one_variance_are_dpo():
    batch = replace(four(), variance_chosen=column([0.7] * 4), variance_rejected=column([0.7] * 4))
    beta = VarianceWeightedKL(beta=0.1).beta(batch)
    assert beta.shape == (4, 2)
    found = UncertaintyPairwiseLoss()(batch, Step(beta=beta)).values
    torch.testing.assert_close(found, call(DPOLoss(), batch, beta=0.1).values, rtol=0, atol=1e-12)


def test_gradient_of_pairs():
    assert_gradcheck(UncertaintyPairwiseLoss(), beta=0.3)


# Invariants


@pytest.mark.parametrize(("shift", "sign"), [(0.5, -1), (-0.5, 1), (0.0, 0)])
def test_more_variance_moves_the_advantage_against_the_log_ratio(shift, sign):
    """h > 0: lower; h < 0: higher; h = 0: not at all."""

    def advantage(variance: float) -> float:
        policy, ref = [[-1.0], [-2.0], [-1.5]], [[-1.0 - shift], [-2.2], [-1.4]]
        batch = rollouts(policy, ref, column([0.3, 0.1, 0.5]), column([variance, 0.5, 0.5]))
        controller = VarianceWeightedKL()
        controller.load_state_dict({"running_mean": 0.5})
        return returns(controller, batch)[0]

    change = advantage(2.0) - advantage(0.5)
    assert change == 0.0 if sign == 0 else change * sign > 0


@pytest.mark.parametrize("loss", [RLOOLoss(), REINFORCELoss(baseline="group_mean")], ids=["rloo", "reinforce"])
@pytest.mark.parametrize("variant", ["detached", "exact", "precision"])
def test_a_constant_on_the_rewards_of_a_prompt_changes_nothing(loss, variant):
    batch = random_rollouts()
    moved = replace(batch, score=batch.score + column([7.0, -3.0])[batch.group])
    kl = VarianceWeightedKL(variant=variant)
    found, shifted = (prepared(one, loss, kl)[0].advantage for one in (batch, moved))
    torch.testing.assert_close(found, shifted, rtol=0, atol=1e-12)


def test_precision_is_not_invariant_by_itself_which_is_why_it_centres():
    batch = random_rollouts()
    kl = VarianceWeightedKL(variant="precision")
    literal = [score / kl.v(batch) for score in (batch.score, batch.score + 1.0)]
    made = [prepared(replace(batch, score=score), RLOOLoss(), FixedKL(beta=0.1))[0].advantage for score in literal]
    assert float((made[0] - made[1]).abs().max()) > 0.1
    assert torch.equal(kl.reward(batch, kl.beta(batch)), group_centred(batch.score, batch.group, None) / kl.v(batch))


def closed_form(variant: str, reward: Tensor, v: Tensor, reference: Tensor, beta: float) -> Tensor:
    """The optimum over one prompt's arms; lam by bisection (`precision`: rewards centred under the reference)."""
    if variant == "precision":
        logits = reference.log() + (reward - (reference * reward).sum()) / (beta * v)
        return logits.softmax(0)
    offset = 1.0 if variant == "exact" else 0.0
    low, high = reward.min() - offset * beta * v.max() - 1.0, reward.max()
    for _ in range(200):
        lam = (low + high) / 2
        total = (reference * ((reward - lam) / (beta * v) - offset).exp()).sum()
        low, high = (lam, high) if total > 1 else (low, lam)
    return reference * ((reward - lam) / (beta * v) - offset).exp()


ARMS = {
    "reward": column([1.0377190663, 0.5603685410, 0.5202113252, 0.1049001172, -1.4713387463, 0.0039876373]),
    "sigma": column([0.3, 0.3, 0.5, 1.0, 2.0, 2.5]),
    "reference": column([0.10, 0.20, 0.25, 0.20, 0.15, 0.10]),
}


@pytest.mark.parametrize("variant", ["detached", "exact", "precision"])
def test_at_the_closed_form_all_arms_are_worth_the_same(variant):
    """Enumerated arms, v relative to its mean under the reference: the policy gradient vanishes exactly there."""
    kl = VarianceWeightedKL(beta=1.0, variant=variant, v_min=0.25)

    def arms(policy: Tensor) -> RolloutBatch:
        logp, ref = ([[float(x)] for x in p.log()] for p in (policy, ARMS["reference"]))
        return rollouts(logp, ref, ARMS["reward"], ARMS["sigma"] ** 2, weight=ARMS["reference"])

    v = kl.v(arms(ARMS["reference"]))
    mean = float((ARMS["reference"] * ARMS["sigma"] ** 2).sum())
    torch.testing.assert_close(v, (ARMS["sigma"] ** 2 / mean).clamp(min=0.25))
    policy = closed_form(variant, ARMS["reward"], v, ARMS["reference"], 1.0)
    assert float(policy.sum()) == pytest.approx(1.0, abs=1e-12)
    worth = returns(kl, arms(policy))
    assert max(worth) - min(worth) < 1e-12
    away = returns(kl, arms(ARMS["reference"]))
    assert max(away) - min(away) > 0.1
    if variant == "detached":
        assert policy.tolist() == pytest.approx(
            [0.4713551941, 0.1396804085, 0.1486912049, 0.0875840651, 0.0671817936, 0.0855073338], abs=1e-9
        )


def test_a_very_uncertain_arm_stays_where_it_was():
    v = column([1.0, 1.0, 1.0, 1.0, 1.0, 1e9])
    policy = closed_form("detached", ARMS["reward"], v, ARMS["reference"], 1.0)
    assert float(policy[5]) == pytest.approx(0.10, abs=1e-8)


def test_the_order_of_completions_and_of_members_does_not_matter():
    order = torch.tensor([2, 0, 1])
    kl = VarianceWeightedKL()
    heads = column(HEADS)
    swapped = heads[torch.tensor([3, 1, 0, 2])]
    found = returns(kl, rollouts(POLICY, REF, heads.mean(0), heads.var(0)))
    again = returns(kl, rollouts(POLICY, REF, swapped.mean(0), swapped.var(0)))
    moved = returns(
        kl, rollouts([POLICY[i] for i in order], [REF[i] for i in order], heads.mean(0)[order], heads.var(0)[order])
    )
    assert again == pytest.approx(found, abs=1e-14)
    assert moved == pytest.approx([found[i] for i in order], abs=1e-14)


@pytest.mark.parametrize("variant", ["detached", "exact", "precision"])
def test_nothing_flows_back_into_the_ensemble(variant):
    heads = column(HEADS).requires_grad_()
    batch = rollouts(POLICY, REF, heads.mean(0).detach(), heads.var(0))
    kl = VarianceWeightedKL(variant=variant)
    beta = kl.beta(batch)
    assert not beta.requires_grad and not kl.reward(batch, beta).requires_grad
    assert not any(value.requires_grad for value in kl.report(batch, beta).values())


# State, and what is refused


def test_the_running_mean():
    kl = VarianceWeightedKL(v_min=0.0, v_max=1e3)
    batch = three()
    before = kl.v(batch)
    kl.observe({"variance": torch.tensor(9.0)})  # an optimiser step on rollouts
    assert kl.state_dict() == {}
    report = kl.report(batch, kl.beta(batch))
    kl.observe_round({name: float(value.mean()) for name, value in report.items()}, 3)
    assert torch.equal(kl.v(batch), before)
    kl.observe_round({"variance": 1.0}, 3)
    mean = float(batch.variance.mean())
    assert kl.state_dict()["running_mean"] == pytest.approx(0.99 * mean + 0.01)
    resumed = VarianceWeightedKL(v_min=0.0, v_max=1e3)
    resumed.load_state_dict(kl.state_dict())
    assert torch.equal(resumed.v(batch), kl.v(batch))
    assert torch.equal(kl.v(batch), batch.variance / kl.state_dict()["running_mean"])


def test_pairs_move_the_running_mean_at_optimiser_steps():
    kl, batch = VarianceWeightedKL(), pair_batch([0, 2, 0], [1, 1, 2])
    report = kl.report(batch, kl.beta(batch))
    assert set(report) == {f"{n}_{s}" for n in ("variance", "v", "clipped") for s in ("chosen", "rejected")}
    kl.observe({name: value.mean() for name, value in report.items()})
    assert kl.state_dict()["running_mean"] == pytest.approx(float(three().variance.mean()))


def test_what_is_reported():
    kl = VarianceWeightedKL()
    report = kl.report(three(), kl.beta(three()))
    assert report["clipped"].tolist() == [1.0, 1.0, 0.0]
    assert report["v"].tolist() == pytest.approx(V, abs=1e-10)
    assert report["variance"].mean().item() == pytest.approx(0.5411111111)
    literal = VarianceWeightedKL(normalise="none")
    assert literal.report(three(), literal.beta(three()))["clipped"].tolist() == [0.0] * 3


def test_without_any_variance_all_are_alike():
    batch = replace(three(), variance=column([0.0, 0.0, 0.0]))
    assert VarianceWeightedKL().beta(batch).tolist() == pytest.approx([0.1] * 3)


def test_weights_count_in_the_first_mean():
    batch = three(weight=column([0.5, 0.25, 0.25]))
    mean = float((batch.weight * batch.variance).sum())
    assert VarianceWeightedKL(v_min=0.0).v(batch).tolist() == pytest.approx((batch.variance / mean).tolist())


def test_beta_is_of_float32_or_wider():
    batch = replace(three(), token_logp=torch.zeros(8, dtype=torch.bfloat16))
    assert VarianceWeightedKL().beta(batch).dtype == torch.float32
    assert VarianceWeightedKL(variant="precision").beta(batch).shape == ()


def refusal(do: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        do()
    return str(caught.value)


def test_an_oracle_that_turned_out_to_have_no_variance():
    kl = VarianceWeightedKL()
    assert "spec.oracle gave none; use an oracle" in refusal(lambda: kl.beta(replace(three(), variance=None)))
    assert "spec.oracle gave none" in refusal(lambda: kl.beta(four()))


def test_precision_cannot_divide_by_nothing():
    batch = replace(three(), variance=column([0.0, 1.0, 1.0]))
    kl = VarianceWeightedKL(variant="precision", normalise="none")
    assert "v is 0 for 1 of 3 completions" in refusal(lambda: kl.reward(batch, kl.beta(batch)))
    kept = VarianceWeightedKL(variant="precision")
    assert bool(kept.reward(batch, kept.beta(batch)).isfinite().all())


@pytest.mark.parametrize("variant", ["exact", "precision"])
def test_pairs_have_the_detached_form_alone(variant):
    kl = VarianceWeightedKL(variant=variant)
    assert "set --spec.kl.variant detached" in refusal(lambda: kl.beta(pair_batch([0], [1])))


def test_limits_the_wrong_way_round():
    with pytest.raises(ValueError, match="v_min is 5, above v_max, 2"):
        VarianceWeightedKL(v_min=5.0, v_max=2.0)
