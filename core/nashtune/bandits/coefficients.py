"""What a spec's policy-gradient loss does to a tabular policy, by the same calls as in training.

All arms of all prompts are one batch of rollouts, one token each. The KL controller is asked for β once, at the start
policy; then, for any policy, its reward and the loss's advantages are computed as before an update, and the loss's
gradient as in its first step. The coefficient c = -∂value/∂log π of an arm is what its log-prob is pushed by, so that
the expected step on the logits is π (c - E_π c), and a policy is at rest where all arms of a prompt have the same c.
Legend: X = prompts, n = arms of the largest prompt, S = arms of all prompts (rollouts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from nashtune.bandits.table import Table
from nashtune.errors import CheckFailed
from nashtune.games.matrices import Array
from nashtune.interfaces import KLController, Loss, RewardOracle, Rewards, RolloutBatch, Step
from nashtune.kl.asked import asked_beta
from nashtune.spec.resolve import build

if TYPE_CHECKING:
    from nashtune.spec.model import Spec

STEADY = 1e4
"""How much more the steadying prompt spreads than all other arms together."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """What of a spec a bandit uses.

    Args:
        loss: Of rollouts.
        kl: None where the spec has none.
        oracle: None where the spec has none that scores.
        references: Names of the references; every one of them is the start policy here.
    """

    loss: Loss
    kl: KLController | None
    oracle: RewardOracle | None
    references: tuple[str, ...]


def components_of(spec: Spec) -> Components:
    """Build them.

    Raises:
        InputError: a component cannot be built.
    """
    oracle = build(spec.oracle) if spec.oracle is not None else None
    return Components(
        loss=cast(Loss, build(spec.loss)),
        kl=cast(KLController, build(spec.kl)) if spec.kl is not None else None,
        oracle=oracle if isinstance(oracle, RewardOracle) else None,
        references=tuple(spec.references),
    )


def judged(oracle: RewardOracle | None, table: Table) -> tuple[Tensor, Tensor]:
    """What the spec's oracle makes of the table's rewards: score and variance (S,) each.

    Raises:
        InputError: its rule needs members, and the table has none; or it makes no finite number.
    """
    estimate_S, variance_S = table.flat(table.estimate), table.flat(table.variance)
    if oracle is None:
        return estimate_S, variance_S
    if table.members is None:
        rewards = oracle.tabular(Rewards(mean=estimate_S, variance=variance_S))
    else:  # their variance is the oracle's to say
        members_SK = torch.from_numpy(np.moveaxis(table.members, 1, 2)[table.held])
        rewards = oracle.tabular(Rewards(mean=estimate_S, members=members_SK))
    return rewards.mean, variance_S if rewards.variance is None else rewards.variance


def refuse_unheld(beta: Tensor | None, table: Table, names: Sequence[str]) -> None:
    """Refuse a variance of 0 that leaves an arm without a KL coefficient.

    Args:
        beta: From the KL controller: a scalar, or of each arm (S,).
        table: The prompts, or the prompts many times over.
        names: Of the prompts.

    Raises:
        CheckFailed: names prompt and arm.
    """
    if beta is None or beta.ndim == 0 or bool((beta > 0).all()):
        return
    x, arm = np.argwhere(table.held)[int((beta <= 0).nonzero()[0])]
    drawn = ", where the noise is drawn" if x >= len(names) else ""
    raise CheckFailed(
        f"no finite optimum: {names[x % len(names)]}{drawn}: v is 0 for arm {arm}: nothing holds the policy there; "
        "give every arm a variance, or set normalise: running and v_min above 0"
    )


class Coefficients:
    """c of every arm as a function of the policy.

    Args:
        components: The spec's.
        table: The prompts.

    Attributes:
        beta: From the KL controller at the start policy: a scalar or (S,); None without one.
        score: What the loss learns from: the controller's reward at that policy (S,).
    """

    def __init__(self, components: Components, table: Table) -> None:
        self.table = table
        self._loss, self._kl = components.loss, components.kl
        log_reference_S = table.flat(table.log_reference)
        score_S, variance_S = judged(components.oracle, table)
        size = len(score_S)
        self._start = RolloutBatch(
            token_logp=log_reference_S,
            sequence=torch.arange(size),
            lengths=torch.ones(size, dtype=torch.long),
            score=score_S,
            anchors=dict.fromkeys(components.references, log_reference_S),
            group=table.group,
            finished=torch.ones(size, dtype=torch.bool),
            variance=variance_S,
            old=log_reference_S,
            weight=table.weight,
        )
        self.beta = None if self._kl is None else asked_beta(self._kl, self._start).detach().double()
        self.score = self._reward(self._start)
        spread = float(self.score.max() - self.score.min()) + float(self.score.abs().max()) + 1.0
        strongest = 0.0 if self.beta is None else float(self.beta.max())  # penalties are part of what spreads
        self._far = STEADY * (spread + strongest) * size**0.5
        self._steadied = False

    @property
    def beta_S(self) -> Tensor | None:
        """β of each arm (S,)."""
        return None if self.beta is None else self.beta.expand(len(self.score))

    def steady(self) -> None:
        """Keep the loss's scale from running away, where it normalises advantages by their spread over the batch.

        At the optimum all advantages of a prompt are equal, and a loss that divides by a spread of none scales rounding
        up to 1. Where coefficients do not grow with reward and β together, one more prompt, with two arms of very
        different scores and a policy that stays where it is, holds the spread up, as the other prompts of a batch do.
        It leaves the optimum where it is.

        Raises:
            CheckFailed: the loss divides a prompt's advantages by their own spread, with the KL penalty among them.
        """
        self._steadied = self._scale_free()
        if self._steadied and self._scale_free():
            raise CheckFailed(
                "no optimum: the loss divides a prompt's advantages by their spread, and the KL penalty is among them; "
                "where they are all equal it has no scale, and it never comes to rest. Set kl_in: loss, or scale: none"
            )

    def _scale_free(self) -> bool:
        """Whether the coefficients stay the same when reward and β are doubled."""
        noise = np.random.default_rng(0).normal(size=self.table.held.shape)
        shaken = self.table.log_reference + np.where(self.table.held, noise, 0.0)
        once, twice = (self._centred(self._at(shaken, scale)) for scale in (1.0, 2.0))
        return bool(np.abs(once - twice).max() <= 1e-2 * np.abs(once).max())

    def __call__(self, log_policy: Array) -> Array:
        """C (X, n), 0 outside of the table, at log-probs (X, n)."""
        return self._at(log_policy, 1.0)

    def _at(self, log_policy: Array, scale: float) -> Array:
        """C where reward and β are `scale` times what they are (X, n)."""
        policy_S = self.table.flat(log_policy)
        batch = replace(self._start, token_logp=policy_S, old=policy_S)
        batch = replace(batch, score=scale * self._reward(batch))
        beta = None if self.beta is None else scale * self.beta
        if self._steadied:
            batch, beta = _with_steadying_prompt(batch, beta, self._far)
        if self._loss.uses_values:
            zero_S = torch.zeros_like(batch.score)  # a critic's guess moves all arms of a prompt alike
            batch = replace(batch, old_value=zero_S, value=zero_S, old_value_end=zero_S, value_end=zero_S)
        step = Step(beta=beta)
        with torch.no_grad():
            made = self._loss.advantages(batch, step)
        leaf_S = batch.token_logp.clone().requires_grad_()
        batch = replace(batch, token_logp=leaf_S)
        if made is not None:
            batch = replace(batch, advantage=made.advantage, target=made.target, target_end=made.target_end)
        values_S = self._loss(batch, step).values
        (gradient_S,) = torch.autograd.grad(values_S.sum(), leaf_S)
        return self.table.padded(-gradient_S[: len(policy_S)])

    def _reward(self, batch: RolloutBatch) -> Tensor:
        return batch.score if self._kl is None else self._kl.reward(batch, cast(Tensor, self.beta)).detach()

    def _centred(self, c: Array) -> Array:
        mean = c.sum(-1, keepdims=True) / self.table.held.sum(-1, keepdims=True)
        centred: Array = np.where(self.table.held, c - mean, 0.0)
        return centred


def _with_steadying_prompt(batch: RolloutBatch, beta: Tensor | None, far: float) -> tuple[RolloutBatch, Tensor | None]:
    """The batch with a prompt of two more arms at their reference, of scores -far and far."""
    size = len(batch.score)
    half_2 = torch.full((2,), 0.5, dtype=torch.float64)

    def more(values_S: Tensor | None, added_2: Tensor) -> Tensor:
        return torch.cat([cast(Tensor, values_S), added_2.to(cast(Tensor, values_S).dtype)])

    group_S = cast(Tensor, batch.group)
    steadied = replace(
        batch,
        token_logp=more(batch.token_logp, half_2.log()),
        old=more(batch.old, half_2.log()),
        sequence=torch.arange(size + 2),
        lengths=torch.ones(size + 2, dtype=torch.long),
        score=more(batch.score, far * torch.tensor([-1.0, 1.0])),
        anchors={name: more(values_S, half_2.log()) for name, values_S in batch.anchors.items()},
        group=more(group_S, (group_S.max() + 1).repeat(2)),
        finished=torch.ones(size + 2, dtype=torch.bool),
        variance=more(batch.variance, cast(Tensor, batch.variance).mean().repeat(2)),
        weight=more(batch.weight, cast(Tensor, batch.weight).mean().repeat(2)),
    )
    if beta is None or beta.ndim == 0:
        return steadied, beta
    return steadied, more(beta, beta.mean().repeat(2))
