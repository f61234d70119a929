"""Test bench of KL controllers: a controller, through its own interface, on a simulated plant.

The plant is the KL divergence that training answers to β: at rest it is a power of β, it is approached with a lag, it
answers an older β where there is a delay, and it is measured on noisy rollouts.

    KL_rest(beta) = start_kl_at_rest (beta / beta_rest)^-slope
    KL_{t+1}      = KL_t + (KL_rest(beta_{t - delay}) - KL_t) / lag

For rewards that are Gaussian under the reference, the policy pi_ref exp(R/beta)/Z has KL = Var(R) / (2 beta^2), which
is slope 2. Source: the bench is ours; it stands for no published plant.

Legend: S = rollouts of a round.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from nashtune.interfaces import KLController, RolloutBatch

BAND = 0.1
"""Settled is: within a tenth of the set point, for good."""
TAIL = 4
"""The last part of a run, one in TAIL rounds, shows what remains."""
PROBE = 0.05
"""Relative error of the KL that the controller's gain is measured with; small enough for Ziegler's clip."""


@dataclass(frozen=True, kw_only=True)
class Plant:
    """What β does to the KL divergence.

    Args:
        kl_rest: KL at rest under `beta_rest`, in nats per completion, > 0.
        beta_rest: The β of that, > 0.
        slope: By how many percent the KL at rest falls when β rises by one percent, > 0; 2 for Gaussian rewards.
        lag: Rounds in which the KL makes up all but 1/e of a difference, >= 1; 1: it is there in the next round.
        delay: Rounds after which a β first acts, >= 0.
        noise: Standard deviation of a round's measured mean KL, as a share of `kl_rest`, >= 0.
        completions: Rollouts of a round S, > 0.
        seed: Of the noise.
    """

    kl_rest: float = 6.0
    beta_rest: float = 0.1
    slope: float = 2.0
    lag: float = 20.0
    delay: int = 0
    noise: float = 0.05
    completions: int = 512
    seed: int = 0

    def at_rest(self, beta: float) -> float:
        """KL that β leads to in the long run."""
        return float(self.kl_rest * (beta / self.beta_rest) ** -self.slope)

    def step(self, kl: float, beta: float) -> float:
        """KL one round later."""
        return kl + (self.at_rest(beta) - kl) / self.lag


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


def reacts(controller: KLController) -> bool:
    """Whether a controller does anything when it is told of a round."""
    return type(controller).observe_round is not KLController.observe_round


def simulate(controller: KLController, plant: Plant, rounds: int, name: str = "") -> Trace:
    """Run a controller on a plant, from the reference (KL 0) on; the controller's state changes.

    Args:
        controller: Through `beta`, `report` and `observe_round`, as in training.
        plant: What it steers.
        rounds: Rounds to run, > 0.
        name: Of the trace.
    """
    random = np.random.default_rng(plant.seed)
    radius = spectral_radius(controller, plant)
    kl, kls, measured, betas = 0.0, [], [], []
    waiting: deque[float] = deque(maxlen=plant.delay + 1)
    for _ in range(rounds):
        batch = rollouts(kl, plant, random)
        beta, seen = _observe(controller, batch)
        kls.append(kl)
        measured.append(seen)
        betas.append(beta)
        waiting.append(beta)
        kl = plant.step(kl, waiting[0])
    return Trace(name=name, setpoint=controller.setpoint(), kl=kls, measured=measured, beta=betas, radius=radius)


def rollouts(kl: float, plant: Plant, random: np.random.Generator) -> RolloutBatch:
    """A round's rollouts: S completions of one token whose log-ratios scatter about the KL.

    Their rewards have a log-normal variance, for controllers that read it.
    """
    count = plant.completions
    scatter = plant.noise * plant.kl_rest * math.sqrt(count)
    ratio_S = torch.from_numpy(kl + scatter * random.standard_normal(count))
    ref_S = torch.full((count,), -1.0, dtype=torch.float64)
    logp_S = ref_S + ratio_S
    return RolloutBatch(
        token_logp=logp_S,
        sequence=torch.arange(count),
        lengths=torch.ones(count, dtype=torch.long),
        score=torch.zeros(count, dtype=torch.float64),
        anchors={"ref": ref_S},
        group=torch.arange(count),
        finished=torch.ones(count, dtype=torch.bool),
        variance=torch.from_numpy(np.exp(random.standard_normal(count))),
        old=logp_S,
    )


def spectral_radius(controller: KLController, plant: Plant) -> float | None:
    """Largest modulus of the linearised loop's eigenvalues at the set point; None without one.

    With x = log KL and b = log β, both relative to their rest, the gain g is measured on the controller itself:

        x_{t+1} = x_t - (slope b_{t - delay} + x_t) / lag,        b_{t+1} = b_t + g x_t
    """
    setpoint = controller.setpoint()
    if setpoint is None:
        return None
    gain = _gain(controller, plant, setpoint)
    size = plant.delay + 2  # x, and b of this round and of those that still wait
    loop = np.zeros((size, size))
    loop[0, 0] = 1.0 - 1.0 / plant.lag
    loop[0, size - 1] -= plant.slope / plant.lag
    loop[1, :2] = gain, 1.0
    for old in range(2, size):
        loop[old, old - 1] = 1.0
    return float(np.abs(np.linalg.eigvals(loop)).max())


def _gain(controller: KLController, plant: Plant, setpoint: float) -> float:
    """Change of log β per change of log KL in one update, at the set point; the controller's state is put back."""
    saved = controller.state_dict()
    quiet = Plant(**{**vars(plant), "noise": 0.0})
    logs = []
    for sign in (1.0, -1.0):
        batch = rollouts(setpoint * math.exp(sign * PROBE), quiet, np.random.default_rng(0))
        _observe(controller, batch)
        logs.append(math.log(float(controller.beta(batch).mean())))
        controller.load_state_dict(saved)
    return (logs[0] - logs[1]) / (2.0 * PROBE)


def _observe(controller: KLController, batch: RolloutBatch) -> tuple[float, float]:
    """One update as training does it; the mean β, and the mean KL that was measured."""
    beta = controller.beta(batch)
    report = controller.report(batch, beta)
    controller.observe_round({name: float(value.mean()) for name, value in report.items()}, len(batch.score))
    return float(beta.mean()), float((batch.token_logp - batch.anchors["ref"]).mean())
