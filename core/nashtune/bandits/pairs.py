"""A loss of pairs on a bandit: answers come from the policy, and labels from the rewards, P(y > y') = sigmoid(R - R').

Legend: X = prompts, n = arms of the largest prompt, A = arms of all prompts, B = rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nashtune.bandits.coefficients import Components, judged, refuse_unheld
from nashtune.bandits.table import Table
from nashtune.games.matrices import Array, Game, bradley_terry
from nashtune.games.population import Population, Rows
from nashtune.games.runner import TabularRunner
from nashtune.interfaces import PairBatch
from nashtune.kl.asked import asked_beta, asked_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nashtune.spec.model import Spec


@dataclass(frozen=True, kw_only=True)
class RowsWithVariance(Rows):
    """Pairs whose rewards have a variance.

    Args:
        variance_chosen_B: Of the chosen arm's reward (B,).
        variance_rejected_B: Of the rejected arm's (B,).
    """

    variance_chosen_B: Tensor
    variance_rejected_B: Tensor

    def batch(self, policy_A: Tensor, anchors: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> PairBatch:
        """As `Rows.batch`, with variances."""
        batch = super().batch(policy_A, anchors, statistics)
        return replace(batch, variance_chosen=self.variance_chosen_B, variance_rejected=self.variance_rejected_B)

    def _where(self, kept_B: Tensor) -> RowsWithVariance:
        return RowsWithVariance(**{name: value[kept_B] for name, value in vars(self).items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class PairOptimum:
    """Where a spec of pairs ends.

    Args:
        log_policy: Log-probs (X, n), -inf outside of the table.
        score: Rewards that the labels follow (X, n).
        beta: β of each arm at the start policy (X, n); None without one, or where it is not one per arm.
        rounds: Updates, each to the minimiser of its loss.
        notes: What a reader must know.
    """

    log_policy: Array
    score: Array
    beta: Array | None
    rounds: int
    notes: list[str]


def pair_optimum(spec: Spec, components: Components, table: Table, names: Sequence[str]) -> PairOptimum:
    """Run the spec's schedule, exactly.

    Args:
        spec: The spec.
        components: Its loss and oracle, built.
        table: The prompts, or the prompts many times over.
        names: Of the prompts.

    Raises:
        InputError: the loss reads no pairs.
        CheckFailed: an update has no finite minimiser.
    """
    score_A, variance_A = judged(components.oracle, table)
    score, variance = table.padded(score_A), table.padded(variance_A)
    games = [
        Game(name=str(x), matrix=bradley_terry(score[x][held]), start=np.exp(table.log_reference[x][held]))
        for x, held in enumerate(table.held)
    ]
    population = Population(games)
    flat_A = table.flat(variance)

    state: dict[str, Any] = {}

    def source(mu_A: Array, round: int) -> Rows:
        if state and runner.kl is not None:
            runner.kl.load_state_dict(state)  # in later rounds too v is that of the reference's answers
        rows = population(mu_A, round)
        return RowsWithVariance(
            **vars(rows), variance_chosen_B=flat_A[rows.chosen_B], variance_rejected_B=flat_A[rows.rejected_B]
        )

    runner = TabularRunner(spec, games, source)
    start_A = np.concatenate([np.log(game.start) for game in games])
    beta = _beta(runner, source(start_A, 1), torch.from_numpy(start_A))
    refuse_unheld(beta, table, names)
    if runner.kl is not None and runner.kl.uses_variance:
        state |= runner.kl.state_dict()
    trajectory = runner.run()
    last = np.full(table.held.shape, -np.inf)
    last[table.held] = trajectory.policies[-1]
    return PairOptimum(
        log_policy=last,
        score=score,
        beta=None if beta is None else table.padded(beta),
        rounds=len(trajectory.policies) - 1,
        notes=trajectory.notes,
    )


def _beta(runner: TabularRunner, rows: Rows, start_A: Tensor) -> Tensor | None:
    """β of each arm (A,) at the start policy; a controller that reads the variance is told its mean there first.

    Rows are every pair once, with a weight that a controller does not see: a mean over them would count rare arms as
    often as common ones.
    """
    kl = runner.kl
    if kl is None or kl.statistics:
        return None
    batch = rows.batch(start_A, {name: start_A for name in runner.references}, {})
    if kl.uses_variance:
        share_B = rows.weight_B / rows.weight_B.sum()
        report = asked_report(kl, batch, asked_beta(kl, batch))
        kl.observe({name: (value.double() * share_B).sum() for name, value in report.items()})
    beta = asked_beta(kl, batch).double()
    if beta.ndim == 0:
        return beta.expand(len(start_A))
    if beta.ndim == 1:
        return None
    beta_A = torch.zeros_like(start_A)
    beta_A[rows.chosen_B] = beta[:, 0]
    return beta_A
