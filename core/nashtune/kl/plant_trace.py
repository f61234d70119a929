"""What a run on the test bench of KL controllers was, and whether it settled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BAND = 0.1
"""Settled is: within a tenth of the set point, for good."""
TAIL = 4
"""The last part of a run, one in TAIL rounds, shows what remains."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A run of a controller on a plant.

    Args:
        name: Of the controller's setting.
        setpoint: KL that it steers to; None where it steers to none.
        kl: KL of each round, without the noise of its measurement.
        measured: KL that the controller was shown.
        beta: Mean coefficient of each round.
        radius: Factor by which a small disturbance changes per round, at the set point: below 1 it dies out. None
            without a set point.
    """

    name: str
    setpoint: float | None
    kl: list[float]
    measured: list[float]
    beta: list[float]
    radius: float | None

    @property
    def target(self) -> float:
        """What `settled` and the errors are measured against: the set point, or the mean KL of the last quarter."""
        return self.setpoint if self.setpoint is not None else float(np.mean(self._tail()))

    @property
    def settled(self) -> int | None:
        """Round, from 1, from which on the KL stays within a tenth of the target; None if it left late."""
        outside = [t for t, kl in enumerate(self.kl, start=1) if abs(kl / self.target - 1.0) > BAND]
        last = outside[-1] if outside else 0
        return last + 1 if last <= len(self.kl) - len(self._tail()) else None

    @property
    def overshoot(self) -> float:
        """How far the KL went beyond the target at most, as a share of it."""
        return max(0.0, max(self.kl) / self.target - 1.0)

    @property
    def final_error(self) -> float:
        """Mean KL of the last quarter over the target, minus 1."""
        return float(np.mean(self._tail())) / self.target - 1.0

    @property
    def ripple(self) -> float:
        """Standard deviation of the KL in the last quarter, as a share of the target."""
        return float(np.std(self._tail())) / self.target

    def _tail(self) -> list[float]:
        return self.kl[-max(1, len(self.kl) // TAIL) :]

    def to_dict(self) -> dict[str, object]:
        """Everything, as plain data."""
        shown = ("settled", "overshoot", "final_error", "ripple")
        return {**vars(self), **{name: getattr(self, name) for name in shown}}
