"""Runs a spec's schedule on tabular policies: the same loss, KL controller and schedule as on language models.

What a language model estimates is exact here: completions become the policy's own probabilities, the oracle a
preference matrix, and each update ends at the minimiser of its loss.
Legend: A = actions of all games, B = rows, n = actions of one game.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from nashtune.apply_loss import apply_loss
from nashtune.errors import CheckFailed
from nashtune.games.equilibrium import normalise
from nashtune.games.matrices import Array, Game
from nashtune.games.minimise import Minimiser
from nashtune.games.population import Population, Rows
from nashtune.games.refusals import refuse_comparing_rows, refuse_following_steps, refuse_other_rows
from nashtune.interfaces import KLController, Loss, Reference, Schedule, Step
from nashtune.interfaces.kl import watches
from nashtune.interfaces.schedule import START, Anchor, Collect, Pair, Phase, Snapshot, Update
from nashtune.kl.asked import asked_beta, asked_report
from nashtune.spec.resolve import build

if TYPE_CHECKING:
    from nashtune.spec.model import ComponentSpec, Spec

LIVE = "live"
BETA_ROUNDS = 50
"""How often the minimiser is sought anew because the KL controller's β depends on it."""

BETA_MOVES = "β depends on the policy: the minimiser was sought anew with the β that the last one gives"
MOVES_BY_UPDATES = (
    "kl {kl} is told what happened once an update here, each of which is one exact minimisation, and once an optimiser "
    "step in training: β moves on other occasions there"
)

RowSource = Callable[[Array, int], Rows]
"""(log-probs of the policy that draws (A,), round) -> rows."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What a run came to.

    Args:
        policies: Log-probs (A,) before training and after each round.
        notes: What a reader must know, each once.
    """

    policies: list[Array]
    notes: list[str]


class TabularRunner:
    """A spec on a few games.

    Args:
        spec: The resolved spec.
        games: One per prompt; their policies do not interact, unless through the KL controller.
        source: Where rows come from; None for every pair, weighted by its probability.

    Raises:
        InputError: the spec's loss does not work on pairs or follows optimiser steps, or something compares the rows of
            a batch.
    """

    def __init__(self, spec: Spec, games: Sequence[Game], source: RowSource | None = None) -> None:
        self.spec = spec
        self.loss = cast(Loss, build(spec.loss))
        refuse_other_rows(self.loss, spec)
        refuse_following_steps(self.loss, spec)
        self.kl = cast(KLController, build(spec.kl)) if spec.kl else None
        refuse_comparing_rows(self.loss, self.kl, spec)
        self.schedule = cast(Schedule, build(spec.schedule))
        self.references = {name: cast(Reference, build(part)) for name, part in spec.references.items()}
        self.sizes = [game.size for game in games]
        self.notes: list[str] = []
        self._source: RowSource = source or Population(games)
        self._bank: dict[str, Array] = {START: np.concatenate([np.log(game.start) for game in games])}
        self._live = self._bank[START]
        self._mu = self._bank[START]
        self._rows: Rows | None = None
        self._anchors: dict[str, Tensor] = {}
        self._minimiser: Minimiser | None = None

    def run(self) -> Trajectory:
        """Every round of the schedule.

        Raises:
            CheckFailed: an update has no finite minimiser; says which.
        """
        policies = [self._bank[START]]
        for t, one in enumerate(self.schedule.rounds(), start=1):
            for phase in one.phases:
                self._do(phase, t)
            policies.append(self._live if one.policy is None else self._bank[one.policy])
        return Trajectory(policies=policies, notes=self.notes)

    def _do(self, phase: Phase, t: int) -> None:
        match phase:
            case Collect():
                self._mu = self._draw_from(phase, t)
                self._rows = None
            case Pair():
                self._rows = self._source(self._mu, t)
            case Anchor():
                self._anchors = {name: self._anchor(name, phase) for name in self.references}
            case Update():
                self._live = self._update(phase, t)
            case Snapshot():
                weights = phase.average or {LIVE: 1.0}
                self._bank[phase.name] = self._mix(weights)

    def _draw_from(self, phase: Collect, t: int) -> Array:
        weight = self.loss.reference_weight(t) if phase.reference_weight is None else phase.reference_weight
        policy = LIVE if phase.policy is None else phase.policy
        return self._mix({policy: 1.0 - weight, START: weight} if weight and policy != START else {policy: 1.0})

    def _anchor(self, name: str, phase: Anchor) -> Tensor:
        snapshot = self.references[name].snapshot
        if snapshot == "previous":
            return torch.from_numpy(self._mix(phase.previous))
        if snapshot is None:
            self._note(f"the reference '{name}' ({self.spec.references[name].name}) is taken to be the start policy")
        return torch.from_numpy(self._bank[START])

    def _mix(self, weights: Mapping[str, float]) -> Array:
        """Weighted logits of snapshots, normalised: a geometric mixture (A,)."""
        parts = [self._live if name == LIVE else self._bank[name] for name in weights]
        if len(parts) == 1:
            return parts[0]
        total = np.sum([weight * part for weight, part in zip(weights.values(), parts, strict=True)], axis=0)
        return np.concatenate([normalise(part) for part in self._per_game(total)])

    def _per_game(self, values_A: Array) -> list[Array]:
        return np.split(values_A, np.cumsum(self.sizes)[:-1])

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _update(self, phase: Update, t: int) -> Array:
        start_A = self._mix({LIVE if phase.start is None else phase.start: 1.0})
        if self._rows is None:
            self._rows = self._source(self._mu, t)
        if not len(self._rows.weight_B):
            return start_A  # a small sample may hold no pair
        step = Step(round=t, scale=phase.step_scale)
        if self._minimiser is None:
            differences = self._sees_differences_only(self._rows, step)
            self._minimiser = Minimiser(self.sizes, differences_only=differences)
        rows = self._rows.without_identical() if self._minimiser.differences_only else self._rows
        try:
            return self._fit(start_A, rows, step, self._minimiser)
        except CheckFailed as error:
            raise CheckFailed(f"{self.spec.name}, round {t}, update of {phase.name}: {error}") from error

    def _fit(self, start_A: Array, rows: Rows, step: Step, minimiser: Minimiser) -> Array:
        """The minimiser of the loss on the rows; where β depends on the policy, with the β that it itself leads to."""
        policy_A, beta = start_A, self._beta(rows, start_A)
        seen_A = np.zeros(len(start_A), dtype=bool)
        seen_A[rows.chosen_B], seen_A[rows.rejected_B] = True, True
        for _ in range(BETA_ROUNDS):
            given = Step(beta=beta, round=step.round, scale=step.scale)

            def objective(policy_A: Tensor, given: Step = given) -> Tensor:
                batch = rows.batch(policy_A, self._anchors, {})
                return (apply_loss(self.loss, batch, given).values * rows.weight_B).sum()

            policy_A = minimiser(objective, policy_A, seen_A, len(rows.weight_B))
            if beta is None:
                return policy_A
            after = self._beta(rows, policy_A)
            if torch.allclose(cast(Tensor, after), beta, rtol=1e-10, atol=0.0):
                break
            beta = after
            self._note(BETA_MOVES)
        else:
            self._note(
                f"β did not settle within {BETA_ROUNDS} minimisations in round {step.round}; the last one is shown"
            )
        self._observe(rows, policy_A)
        return policy_A

    def _beta(self, rows: Rows, policy_A: Array) -> Tensor | None:
        if self.kl is None:
            return None
        batch = rows.batch(torch.from_numpy(policy_A), self._anchors, self._statistics(policy_A))
        return asked_beta(self.kl, batch)

    def _observe(self, rows: Rows, policy_A: Array) -> None:
        """Tell the KL controller the means over the update's rows, once per update."""
        kl = cast(KLController, self.kl)
        if watches(kl) and not kl.uses_variance:  # a bandit holds what follows a variance at its mean
            self._note(MOVES_BY_UPDATES.format(kl=cast("ComponentSpec", self.spec.kl).name))
        batch = rows.batch(torch.from_numpy(policy_A), self._anchors, self._statistics(policy_A))
        share_B = rows.weight_B / rows.weight_B.sum()
        report = asked_report(kl, batch, asked_beta(kl, batch))
        kl.observe({name: (value.double() * share_B).sum() for name, value in report.items()})

    def _statistics(self, policy_A: Array) -> dict[str, Tensor]:
        """The KL controller's statistics of each action (A,): a completion is one token, its logits the log-probs."""
        kl = cast(KLController, self.kl)
        if not kl.statistics:
            return {}
        pairs = zip(self._per_game(policy_A), self._per_game(self._anchors["ref"].numpy()), strict=True)
        found = [
            kl.token_statistics(
                torch.from_numpy(policy).expand(len(policy), -1),
                torch.from_numpy(ref).expand(len(ref), -1),
                torch.arange(len(policy)),
            )
            for policy, ref in pairs
        ]
        return {name: torch.cat([part[name] for part in found]) for name in kl.statistics}

    def _sees_differences_only(self, rows: Rows, step: Step) -> bool:
        """Whether the loss of a pair stays the same when both of its log-probs grow by the same number."""
        shaken_A = self._live + np.random.default_rng(0).normal(size=len(self._live))
        batch = rows.batch(torch.from_numpy(shaken_A).requires_grad_(), self._anchors, {})
        given = Step(beta=self._beta(rows, shaken_A), round=step.round, scale=step.scale)
        values_B = apply_loss(self.loss, batch, given).values
        chosen_B, rejected_B = torch.autograd.grad(
            values_B.sum(), [batch.policy_chosen, batch.policy_rejected], allow_unused=True
        )
        if chosen_B is None or rejected_B is None:
            return False
        size_B = chosen_B.abs() + rejected_B.abs()
        return bool(((chosen_B + rejected_B).abs() <= 1e-12 * size_B).all())
