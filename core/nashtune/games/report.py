"""What a trajectory says: duality gaps, divergences and rates, round by round; index 0 is the policy before training.

Legend: R = 1 + rounds, n = actions of a game. Gaps and divergences are means over games.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nashtune.errors import CheckFailed
from nashtune.games.equilibrium import duality_gap, kl, nash, regularised_gap, regularised_nash
from nashtune.games.matrices import Array, Game
from nashtune.games.runner import Trajectory
from nashtune.interfaces import Loss

FEWEST = 4
"""Points that a rate is fitted to, at least."""
POINTS = 200
RESOLVED = 1e-13
"""Divergences below are rounding."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A spec's run on games, measured.

    Args:
        spec: Name of the spec.
        games: What was played.
        last: Probabilities before training and after each round, per game (R, n).
        average: Their running means: what theory often speaks of (R, n).
        gap_last: Duality gap of the last policy, by round.
        gap_average: Of the average policy.
        tau: Weight of the KL divergence in the regularised game; None where the loss has none.
        regularised: Duality gap of the last policy in the regularised game; None without tau.
        kl_start: KL(policy || start), in nats.
        kl_nash: KL(Nash || policy), in nats; the Nash policy is one that a linear program found.
        kl_regularised: KL(regularised Nash || policy), in nats; None without tau.
        nash: A Nash policy per game.
        regularised_nash: The regularised Nash policy per game; None without tau.
        rate: Slope of log average gap over log T, see `fitted_slope`; -1 is 1/T. None where it cannot be fitted.
        last_factor: Factor per round of the divergence from the (regularised) Nash policy in the second half.
        bound: The theory's bound on the average gap: formula, and its value by round (None where it states none).
        kl_bound: Likewise on KL(regularised Nash || last policy).
        notes: What a reader must know.
    """

    spec: str
    games: Sequence[Game]
    last: list[Array]
    average: list[Array]
    gap_last: list[float]
    gap_average: list[float]
    tau: float | None
    regularised: list[float] | None
    kl_start: list[float]
    kl_nash: list[float]
    kl_regularised: list[float] | None
    nash: list[Array]
    regularised_nash: list[Array] | None
    rate: float | None
    last_factor: float | None
    bound: tuple[str, list[float | None]] | None
    kl_bound: tuple[str, list[float | None]] | None
    notes: list[str]

    @property
    def rounds(self) -> int:
        """Rounds that were played."""
        return len(self.gap_last) - 1

    def to_dict(self) -> dict[str, Any]:
        """As `nashtune verify --json` prints it: of a single game, policies are not wrapped in a list of games."""

        def per_game(values: Sequence[Array]) -> Any:
            lists = [value.tolist() for value in values]
            return lists[0] if len(lists) == 1 else lists

        names = [game.name for game in self.games]
        return {
            "spec": self.spec,
            "game": names[0] if len(names) == 1 else names,
            "rounds": self.rounds,
            "duality_gap": {"last": self.gap_last, "average": self.gap_average},
            "regularised_gap": {"last": self.regularised},
            "policy": {"last": per_game(self.last), "average": per_game(self.average)},
            "rate": self.rate,
            "last_factor": self.last_factor,
            "bound": None if self.bound is None else {"formula": self.bound[0], "values": self.bound[1]},
            "kl_bound": None if self.kl_bound is None else {"formula": self.kl_bound[0], "values": self.kl_bound[1]},
            "tau": self.tau,
            "kl": {
                "start": _finite(self.kl_start),
                "nash": _finite(self.kl_nash),
                "regularised_nash": None if self.kl_regularised is None else _finite(self.kl_regularised),
            },
            "nash": per_game(self.nash),
            "regularised_nash": None if self.regularised_nash is None else per_game(self.regularised_nash),
            "notes": self.notes,
        }


def measure(spec: str, games: Sequence[Game], trajectory: Trajectory, loss: Loss) -> Report:
    """Compute everything that is reported.

    Args:
        spec: Name of the spec.
        games: What was played.
        trajectory: The runner's.
        loss: The loss that was trained; its attribute `tau`, where it has one above 0, is the regularised game's.
    """
    ends = np.cumsum([game.size for game in games])[:-1]
    policies = np.exp(np.stack(trajectory.policies))
    last = np.split(policies, ends, axis=1)
    average = [np.cumsum(one, axis=0) / np.arange(1, len(one) + 1)[:, None] for one in last]
    notes = list(trajectory.notes)
    tau = getattr(loss, "tau", None)
    tau = float(tau) if tau else None
    plain = [nash(game.matrix) for game in games]
    targets = None if tau is None else _regularised(games, tau, notes)
    gap_last = _mean(games, last, lambda game, policy: duality_gap(game.matrix, policy))
    gap_average = _mean(games, average, lambda game, policy: duality_gap(game.matrix, policy))
    kl_nash = _divergence(plain, last)
    kl_regularised = None if targets is None else _divergence(targets, last)
    return Report(
        spec=spec,
        games=games,
        last=last,
        average=average,
        gap_last=gap_last,
        gap_average=gap_average,
        tau=tau,
        regularised=None
        if tau is None
        else _mean(games, last, lambda game, policy: regularised_gap(game.matrix, policy, game.start, tau)),
        kl_start=_mean(games, last, lambda game, policy: kl(policy, game.start)),
        kl_nash=kl_nash,
        kl_regularised=kl_regularised,
        nash=plain,
        regularised_nash=targets,
        rate=fitted_slope(gap_average),
        last_factor=fitted_factor(kl_nash if kl_regularised is None else kl_regularised),
        bound=_stated(loss.gap_bound(T, max(game.divergence for game in games)) for T in range(1, len(gap_last) + 1)),
        kl_bound=_stated(loss.kl_bound(T) for T in range(1, len(gap_last) + 1)),
        notes=notes,
    )


def fitted_slope(values: Sequence[float]) -> float | None:
    """Slope of log value over log T, T = 1, 2, ..., in the second half of the logarithmic axis.

    Values swing around their trend for as long as the policy does, so that less than that half would measure the swing.
    None with fewer than 4 positive values there.
    """
    last = len(values)
    T = np.unique(np.geomspace(last**0.5, last, POINTS).astype(int))  # evenly spread on that axis
    held = T[np.asarray(values)[T - 1] > RESOLVED]
    if len(held) < FEWEST:
        return None
    return float(np.polyfit(np.log(held), np.log(np.asarray(values)[held - 1]), 1)[0])


def fitted_factor(values: Sequence[float]) -> float | None:
    """Factor per round in the second half of the part that is above rounding; None with fewer than 4 values there."""
    resolved = next((t for t, v in enumerate(values) if not RESOLVED < v < math.inf), len(values))
    t = np.arange(resolved // 2, resolved)
    if len(t) < FEWEST:
        return None
    return float(np.exp(np.polyfit(t, np.log(np.asarray(values)[t]), 1)[0]))


def _mean(games: Sequence[Game], policies: Sequence[Array], of: Callable[[Game, Array], float]) -> list[float]:
    per_game = [[of(game, policy) for policy in own] for game, own in zip(games, policies, strict=True)]
    return [math.fsum(values) / len(values) for values in zip(*per_game, strict=True)]


def _divergence(targets: Sequence[Array], policies: Sequence[Array]) -> list[float]:
    per_game = [[kl(target, policy) for policy in own] for target, own in zip(targets, policies, strict=True)]
    return [math.fsum(values) / len(values) for values in zip(*per_game, strict=True)]


def _regularised(games: Sequence[Game], tau: float, notes: list[str]) -> list[Array] | None:
    try:
        return [regularised_nash(game.matrix, game.start, tau) for game in games]
    except CheckFailed as error:
        notes.append(str(error))
        return None


def _stated(by_round: Iterable[tuple[str, float] | None]) -> tuple[str, list[float | None]] | None:
    stated = list(by_round)
    formula = next((one[0] for one in stated if one is not None), None)
    return None if formula is None else (formula, [None if one is None else one[1] for one in stated])


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
