"""What a spec claims to be exactly is proved: the same gradient as the other spec's on the same rows, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from method_batches import pairs, random_data
from nashtune.interfaces import Anchor, KLController, LossBatch, PairBatch, RolloutBatch, Schedule, Step
from nashtune.interfaces.schedule import START, Collect, Snapshot, Update
from nashtune.interfaces.schedule import Anchor as AnchorPhase
from nashtune.interfaces.scores import ScoreBatch
from nashtune.models.member_order import member_share
from nashtune.oracles.aggregation import aggregate
from nashtune.spec.locate import list_specs
from nashtune.spec.model import Spec
from nashtune.spec.overrides import Override
from nashtune.spec.reductions import Reduction, reductions
from nashtune.spec.resolve import build, resolve
from rl_batches import prepared, random_rollouts

SPECS = sorted(listed.name for listed in list_specs() if listed.plugin == "builtin")
KNOWN = {name: reductions(resolve(name).about) for name in SPECS}
CLAIMS = [(name, one) for name, found in KNOWN.items() for one in found if one.exact and one.method in SPECS]
IN_WORDS = [(name, one) for name, found in KNOWN.items() for one in found if one.method not in SPECS]
SHIFT = 2.0  # between the scores of a pair and the log-probs of two labels: nothing depends on it


def as_they_are(batch: Any) -> Any:
    return batch


def one_token(batch: PairBatch) -> PairBatch:
    return replace(batch, len_chosen=torch.ones_like(batch.len_chosen), len_rejected=torch.ones_like(batch.len_chosen))


def uniform_of_ten(batch: PairBatch) -> PairBatch:
    ten, level = torch.full_like(batch.len_chosen, 10), torch.full_like(batch.policy_chosen, -46.0).detach()
    return replace(batch, len_chosen=ten, len_rejected=ten, anchors={"ref": Anchor(chosen=level, rejected=level)})


def same_variance(batch: Any) -> Any:
    if isinstance(batch, RolloutBatch):
        return replace(batch, variance=torch.full_like(batch.score, VARIANCE))
    return replace(batch, **{f"variance_{side}": torch.full_like(batch.policy_chosen, VARIANCE) for side in SIDES})


def same_anchor(batch: PairBatch) -> PairBatch:
    return replace(batch, anchors={**batch.anchors, "previous": batch.anchors["aux"]})


def just_drawn(batch: RolloutBatch) -> RolloutBatch:
    return replace(batch, old=batch.token_logp.detach())


SIDES = ("chosen", "rejected")
VARIANCE = 0.7
SAME_VARIANCE = "where the variance is the same for all completions of all rounds"
IN_ROUND_1 = "in round 1"
IN_UPDATE_1 = "in the first update of round 1"
ROWS: dict[str, Callable[[Any], Any]] = {
    "": as_they_are,
    "in round 1 (τ = 1/η)": as_they_are,  # anchors are those of the schedule's phases: see `updates_of`
    "in round 1 (τ = η)": as_they_are,
    "in round 1 (τ = 1/(2η))": as_they_are,
    "in the first update of round 1 (τ = 1/η)": as_they_are,
    "in each update, on the same pairs and against the same anchor (its η is 1/η)": same_anchor,
    "in each update, on the same pairs and against the same anchor (its η is 1/(2η))": same_anchor,
    "self-play": as_they_are,
    "best response to the start": as_they_are,
    "on the same pairs": as_they_are,
    "on the same pairs, in every round (τ = η)": as_they_are,
    "on the same pairs: with one round over fixed data": as_they_are,
    "on the same pairs, which it draws from π_t itself (its η is 1/η)": as_they_are,
    "where every completion has one token": one_token,
    "with hard labels, a uniform reference, and 10 tokens in every completion (β/L for L)": uniform_of_ten,
    "on lists of two": as_they_are,  # those of `scores`
    "with the labels' log-probs l in place of the scores r": as_they_are,
    SAME_VARIANCE: same_variance,
    "at one optimiser step a round": just_drawn,
}
"""The words of an entry -> rows of which they are true."""
BY_THE_ORACLE = ("ppo_uwo", "ppo_lcb")
BY_THE_SCHEDULE = ("nash_ema_pg",)


def spec_at(name: str, settings: Any) -> Spec:
    return resolve(name, [Override(tuple(key.split(".")), value, "the test") for key, value in settings.items()])


def both(name: str, claim: Reduction) -> tuple[Spec, Spec]:
    return spec_at(name, claim.at), spec_at(claim.method, claim.there)


def scores(seed: int, members: int = 1) -> Tensor:
    """Of five lists of two, the better one first (10, members)."""
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(10, members, generator=noise, dtype=torch.float64).requires_grad_()


def rows_of(spec: Spec, seed: int, *, soft: bool) -> tuple[LossBatch, list[Tensor]]:
    """A batch that the loss reads, and what it has a gradient to."""
    loss: Any = build(spec.loss)
    if loss.reads == "scores":
        given, head = scores(seed, spec.head.members if spec.head else 1), spec.head
        share = member_share(torch.arange(5), head.members, seed, 0) if head is not None and head.own_order else None
        return ScoreBatch(scores=given, sizes=torch.full((5,), 2), share=share), [given]
    noise = torch.Generator().manual_seed(seed)
    if loss.rows == "comparisons":
        given = scores(seed)
        made = pairs(random_data(count=5))
        labels = {"policy_chosen": given[0::2, 0] - SHIFT, "policy_rejected": given[1::2, 0] - SHIFT}
        return replace(made, **labels), [given]
    if loss.rows == "rollouts":
        rollouts = random_rollouts(seed, [3, 1, 4, 2, 5, 2])
        return replace(rollouts, variance=torch.rand(6, generator=noise).double()), [rollouts.token_logp]
    made = pairs(random_data(seed=seed))
    count = len(made.policy_chosen)
    labels = {"p_chosen": torch.rand(count, generator=noise).double()} if soft and loss.uses_p_chosen else {}
    variances = {f"variance_{side}": torch.rand(count, generator=noise).double() for side in SIDES}
    return replace(made, **variances, **labels), [made.policy_chosen, made.policy_rejected]


def with_statistics(batch: LossBatch, kl: KLController | None, seed: int) -> LossBatch:
    """Sums over completions of what the controller asks of 4 tokens' logits each."""
    if kl is None or not kl.statistics or not isinstance(batch, PairBatch):
        return batch
    noise = torch.Generator().manual_seed(seed)
    found = {}
    for side in SIDES:
        policy, ref = torch.randn(2, len(batch.policy_chosen) * 4, 11, generator=noise, dtype=torch.float64)
        tokens = torch.randint(11, (len(policy),), generator=noise)
        values = kl.token_statistics(policy, ref, tokens)
        found[f"statistics_{side}"] = {key: value.view(-1, 4).sum(1) for key, value in values.items()}
    return replace(batch, **found)


def updates_of(spec: Spec, when: str) -> list[tuple[float, bool]]:
    """Different updates of the first round: the scale, and whether the anchor that a schedule names is the start there.

    Where the words do not speak of round 1, no anchor is known to be anything.
    """
    schedule, at_start = cast(Schedule, build(spec.schedule)), False
    found: list[tuple[float, bool]] = []
    for phase in schedule.rounds()[0].phases:
        if isinstance(phase, AnchorPhase):
            at_start = set(phase.previous) <= {START}
        elif isinstance(phase, Update):
            found.append((phase.step_scale, at_start and when.startswith((IN_ROUND_1, IN_UPDATE_1))))
    return found[:1] if when.startswith(IN_UPDATE_1) else list(dict.fromkeys(found))


def slopes(
    spec: Spec, change: Callable[[Any], Any], seed: int, when: str = "", *, soft: bool = False, before: float = VARIANCE
) -> list[Tensor]:
    """Gradient of the sum of the loss in the updates of which the words speak; `before`: the last round's variance."""
    found = []
    loss: Any = build(spec.loss)
    kl = cast("KLController | None", build(spec.kl)) if spec.kl else None
    if kl is not None and kl.uses_variance:
        kl.observe_round({"variance": before}, 4)
    for scale, at_start in updates_of(spec, when):
        batch, given = rows_of(spec, seed, soft=soft)
        if at_start:
            assert isinstance(batch, PairBatch)
            batch = replace(batch, anchors=dict.fromkeys(batch.anchors, batch.anchors["ref"]))
        batch = with_statistics(change(batch), kl, seed)
        beta = kl.beta(batch) if kl is not None else None
        step = Step(beta=beta, round=1, scale=scale)
        if isinstance(batch, RolloutBatch) and cast(Schedule, build(spec.schedule)).scores:
            batch, step = prepared(loss, batch, beta)
        found += torch.autograd.grad(loss(batch, step).values.sum(), given)
    return found


@pytest.mark.parametrize(("name", "claim"), [pytest.param(*one, id=f"{one[0]} is {one[1]}") for one in CLAIMS])
def test_the_gradients_are_equal(name: str, claim: Reduction) -> None:
    ours, other = both(name, claim)
    if name in BY_THE_SCHEDULE:
        assert opponents(ours) == opponents(other)
        assert (ours.loss.args, ours.kl) == (other.loss.args, other.kl) and ours.loss.target == other.loss.target
    if name in BY_THE_ORACLE:
        rewards_are_the_mean(ours, agree=not claim.at)
    change = as_they_are if name in BY_THE_ORACLE else ROWS[claim.when]
    for seed in range(3):
        soft = seed > 0 and "hard labels" not in claim.when
        found = (slopes(spec, change, seed, claim.when, soft=soft) for spec in (ours, other))
        for one, two in zip(*found, strict=True):
            assert one.abs().max() > 1e-3  # there is something to compare
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def rewards_are_the_mean(spec: Spec, *, agree: bool) -> None:
    """The rest of the spec is the other's; of the oracle this is what is claimed."""
    assert spec.oracle is not None
    noise = torch.Generator().manual_seed(0)
    members = torch.randn(6, 1 if agree else 4, generator=noise, dtype=torch.float64).expand(6, 4)
    found = aggregate(members, spec.oracle.args["aggregate"], spec.oracle.args["penalty"], ddof=0)
    torch.testing.assert_close(found, members.mean(1), rtol=0, atol=1e-12)


def opponents(spec: Spec) -> list[dict[int, float]]:
    """Whose answers the policy's are compared with: weights of the policy after each step, 0 for the start."""
    schedule = cast(Schedule, build(replace_steps(spec).schedule))
    bank = {START: {0: 1.0}, "ema@0": {0: 1.0}}
    found = []
    for t, one in enumerate(schedule.rounds(), start=1):
        for phase in one.phases:
            if isinstance(phase, Collect) and phase.role == "opponent":
                own, start = {t - 1: 1.0} if phase.policy is None else bank[phase.policy], phase.reference_weight or 0.0
                found.append(mixed((1.0 - start, own), (start, bank[START])))
            elif isinstance(phase, Snapshot) and phase.average is not None:
                bank["live"] = {t: 1.0}
                bank[phase.name] = mixed(*((weight, bank[of]) for of, weight in phase.average.items()))
    return found


def mixed(*parts: tuple[float, dict[int, float]]) -> dict[int, float]:
    """A mean, without what has no weight."""
    total: dict[int, float] = {}
    for weight, part in parts:
        for step, share in part.items():
            total[step] = total.get(step, 0.0) + weight * share
    return {step: share for step, share in total.items() if share}


def replace_steps(spec: Spec) -> Spec:
    return replace(spec, schedule=replace(spec.schedule, args={**spec.schedule.args, "steps": 4}))


@pytest.mark.parametrize(("name", "claim"), IN_WORDS, ids=[f"{name} is {one.method}" for name, one in IN_WORDS])
def test_a_method_without_a_spec_is_words_and_its_settings_can_be_made(name: str, claim: Reduction) -> None:
    """A misspelt name would be taken for words."""
    assert " " in claim.method
    spec_at(name, claim.at)


@pytest.mark.parametrize(
    ("name", "claim"), [(name, one) for name, found in KNOWN.items() for one in found if one.method in SPECS]
)
def test_settings_of_every_entry_can_be_made(name: str, claim: Reduction) -> None:
    assert claim.method != name
    both(name, claim)


def test_a_wrong_claim_would_be_seen() -> None:
    """The comparison tells near misses apart."""
    for name, claim in (
        ("epsilon_dpo", Reduction("dpo", True, {"kl.epsilon": 0.0}, {"kl.beta": 0.011})),
        ("inpo", Reduction("ipo_sum", True, {"loss.eta": 0.005}, {"loss.tau": 0.005})),  # not before round 2
        ("rloo", Reduction("reinforce", True)),
        ("reward_bt_ranked", Reduction("reward_bt", True)),
    ):
        change = just_drawn if name == "rloo" else ROWS.get(claim.when, as_they_are)
        assert not equal(name, claim, change), name


def equal(name: str, claim: Reduction, change: Callable[[Any], Any] = as_they_are, **given: Any) -> bool:
    ours, other = (slopes(one, change, 0, claim.when, **given) for one in both(name, claim))
    return len(ours) == len(other) and all(
        one.shape == two.shape and torch.allclose(one, two, rtol=1e-9, atol=0)
        for one, two in zip(ours, other, strict=True)
    )


def test_the_second_update_of_a_round_has_another_anchor_than_the_first() -> None:
    (claim,) = [one for one in KNOWN["onpo"] if one.method == "ipo_sum"]
    assert equal("onpo", claim)
    assert not equal("onpo", replace(claim, when="in round 1 (τ = 1/η)"))


def test_members_and_their_order_are_part_of_a_claim() -> None:
    (claim,) = KNOWN["reward_ensemble_heads"]
    assert equal("reward_ensemble_heads", claim)
    for other in ({"head.members": 1}, {"head.members": 5, "head.own_order": False}):
        assert not equal("reward_ensemble_heads", replace(claim, at=other))


def test_soft_labels_are_read_by_dpo_and_not_by_simpo() -> None:
    (claim,) = KNOWN["simpo"]
    assert equal("simpo", claim, uniform_of_ten) and not equal("simpo", claim, uniform_of_ten, soft=True)


@pytest.mark.parametrize("name", ["uncertainty_rlhf", "uncertainty_rlhf_rloo"])
def test_a_variance_that_was_another_in_earlier_rounds_is_no_ordinary_penalty(name: str) -> None:
    clipped, same = KNOWN[name]
    assert equal(name, same, same_variance) and not equal(name, same, same_variance, before=2.8)
    assert equal(name, clipped, before=2.8) and not equal(name, replace(clipped, at={}))
