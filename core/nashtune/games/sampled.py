"""Rows from samples: what a run on a language model would see of the same games, with finite data.

Legend: A = actions of all games, B = rows, G = groups of completions, K = completions of a group.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from nashtune.errors import InputError
from nashtune.games.matrices import Array, Game
from nashtune.games.population import Rows
from nashtune.interfaces import Pairing
from nashtune.pairing.drive import drive

DEFAULT_COMPLETIONS = 8


class SampledPairs:
    """Draws completions from the policy and makes pairs of them with a pairing; the matrix is the oracle.

    Pairs of one action with itself are dropped and counted, as in a run on a language model.

    Args:
        games: One per prompt.
        pairing: The same object that a run uses.
        pairs: Pairs per game and round, at most.
        completions: Completions of a group, which the pairing sees together: what a run draws for one prompt.
        seed: Draws depend on it, on the round and on the game alone.

    Attributes:
        made: Pairs that were trained on, so far.
        dropped: Why others were not, with how many.

    Raises:
        InputError: the pairing cannot work with that many completions.
    """

    def __init__(self, games: Sequence[Game], pairing: Pairing, *, pairs: int, completions: int, seed: int) -> None:
        try:
            _, most = pairing.most(completions)
        except ValueError as error:
            raise InputError(f"--completions {completions}: {error}") from error
        self.games = games
        self.pairing = pairing
        self.pairs = pairs
        self.completions = completions
        self.groups = math.ceil(pairs / most)
        self.seed = seed
        self.made = 0
        self.dropped: Counter[str] = Counter()

    def __call__(self, mu_A: Array, round: int) -> Rows:
        """The pairs of one round, from the policy with log-probs `mu_A` (A,)."""
        found, first = [], 0
        for number, game in enumerate(self.games):
            mu = np.exp(mu_A[first : first + game.size])
            rows = self._pairs_of(game, mu / mu.sum(), np.random.default_rng([self.seed, round, number]))
            unique, counts = np.unique(rows, axis=0, return_counts=True)
            actions = unique[:, :2].astype(np.int64)
            weight = counts / (max(1, len(rows)) * len(self.games))
            p = game.matrix[actions[:, 0], actions[:, 1]]
            found.append((actions + first, weight, p, unique[:, 2:]))
            self.made += len(rows)
            first += game.size
        actions_B2, weight_B, p_B, rates_B2 = (
            torch.from_numpy(np.concatenate(part)) for part in zip(*found, strict=True)
        )
        known = self.pairing.gives_win_rates
        return Rows(
            chosen_B=actions_B2[:, 0],
            rejected_B=actions_B2[:, 1],
            weight_B=weight_B,
            p_chosen_B=p_B,
            win_rate_chosen_B=rates_B2[:, 0] if known else None,
            win_rate_rejected_B=rates_B2[:, 1] if known else None,
        )

    def _pairs_of(self, game: Game, mu: Array, random: np.random.Generator) -> Array:
        """(chosen, rejected, win rate of chosen, of rejected) of each pair (B, 4); win rates 0 where unknown."""
        drawn_GK = random.choice(game.size, size=(self.groups, self.completions), p=mu)

        def ask(asked: list[tuple[int, int, int]]) -> list[float]:
            group, i, j = np.array(asked).T
            answers: list[float] = game.matrix[drawn_GK[group, i], drawn_GK[group, j]].tolist()
            return answers

        rows: list[tuple[int, int, float, float]] = []
        generators = [self.pairing.compare(self.completions, random) for _ in drawn_GK]
        for actions_K, made in zip(drawn_GK, drive(generators, ask), strict=True):
            self.dropped.update(made.dropped)
            for pair in made.pairs:
                chosen, rejected = int(actions_K[pair.chosen]), int(actions_K[pair.rejected])
                if len(rows) == self.pairs:
                    break
                if chosen == rejected:
                    self.dropped["identical"] += 1
                    continue
                rows.append((chosen, rejected, pair.win_rate_chosen or 0.0, pair.win_rate_rejected or 0.0))
        return np.array(rows, dtype=np.float64).reshape(-1, 4)
