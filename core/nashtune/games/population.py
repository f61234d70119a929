"""The rows that a tabular policy is trained on: every ordered pair of actions, weighted by how often a game draws it.

Several games are several prompts. A policy over all of them is one flat vector of log-probs: the actions of the first
game, then those of the second.
Legend: A = actions of all games, B = rows, n = actions of one game.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nashtune.games.matrices import Array, Game
from nashtune.interfaces import Anchor, PairBatch

RAREST = 1e-150
"""Probability below which an action is not drawn any more: products of smaller ones leave the range of float64."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Weighted preference pairs.

    Args:
        chosen_B: The preferred action (B,).
        rejected_B: The other one (B,).
        weight_B: Share of the row in the objective (B,); they sum to 1 where no row was left out.
        p_chosen_B: P(chosen beats rejected) (B,).
        win_rate_chosen_B: Win rate of the chosen action against the policy that drew the pair (B,); None where unknown.
        win_rate_rejected_B: The same of the rejected one.
    """

    chosen_B: Tensor
    rejected_B: Tensor
    weight_B: Tensor
    p_chosen_B: Tensor
    win_rate_chosen_B: Tensor | None = None
    win_rate_rejected_B: Tensor | None = None

    def without_identical(self) -> Rows:
        """The rows of two different actions."""
        return self._where(self.chosen_B != self.rejected_B)

    def _where(self, kept_B: Tensor) -> Rows:
        fields = {name: value[kept_B] for name, value in vars(self).items() if value is not None}
        return Rows(**fields)

    def batch(
        self,
        policy_A: Tensor,
        anchors: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
    ) -> PairBatch:
        """What a loss or a KL controller sees of these rows; every completion has one token.

        Args:
            policy_A: Log-probs of the policy (A,).
            anchors: Log-probs of frozen policies by name (A,).
            statistics: The KL controller's statistics of each action by name (A,).
        """
        one_B = torch.ones_like(self.chosen_B)
        return PairBatch(
            policy_chosen=policy_A[self.chosen_B],
            policy_rejected=policy_A[self.rejected_B],
            len_chosen=one_B,
            len_rejected=one_B,
            anchors={k: Anchor(chosen=v[self.chosen_B], rejected=v[self.rejected_B]) for k, v in anchors.items()},
            p_chosen=self.p_chosen_B,
            win_rate_chosen=self.win_rate_chosen_B,
            win_rate_rejected=self.win_rate_rejected_B,
            statistics_chosen={k: v[self.chosen_B] for k, v in statistics.items()},
            statistics_rejected={k: v[self.rejected_B] for k, v in statistics.items()},
        )


class Population:
    """Every ordered pair (w, l), as often as it is drawn: the loss on these rows is the population loss, exactly.

    Both completions come independently from the policy mu, and the label from the game, so that a pair's share is
    2 mu(w) mu(l) P(w beats l) divided by the number of games. An action drawn twice is a pair too: for a loss on single
    log-ratios it counts.

    Args:
        games: One per prompt.
    """

    def __init__(self, games: Sequence[Game]) -> None:
        self.games = games
        first, chosen, rejected = 0, [], []
        for game in games:
            i, j = np.indices(game.matrix.shape)
            chosen.append(first + i.ravel())
            rejected.append(first + j.ravel())
            first += game.size
        self._chosen = torch.from_numpy(np.concatenate(chosen))
        self._rejected = torch.from_numpy(np.concatenate(rejected))
        self._p = np.concatenate([game.matrix.ravel() for game in games])

    def __call__(self, mu_A: Array, round: int) -> Rows:
        """The rows that the policy with log-probs `mu_A` (A,) draws; the same in every round."""
        weights, rates, first = [], [], 0
        for game in self.games:
            mu = np.exp(mu_A[first : first + game.size])
            mu[mu < RAREST] = 0.0
            weights.append((2.0 / len(self.games)) * (np.outer(mu, mu) * game.matrix).ravel())
            rates.append(game.matrix @ mu)
            first += game.size
        weight = np.concatenate(weights)
        rate_A = torch.from_numpy(np.concatenate(rates))
        rows = Rows(
            chosen_B=self._chosen,
            rejected_B=self._rejected,
            weight_B=torch.from_numpy(weight),
            p_chosen_B=torch.from_numpy(self._p),
            win_rate_chosen_B=rate_A[self._chosen],
            win_rate_rejected_B=rate_A[self._rejected],
        )
        return rows if weight.all() else rows._where(rows.weight_B > 0)
