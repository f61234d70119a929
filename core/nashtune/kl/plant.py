"""Test bench of KL controllers: a controller, through its own interface, on a simulated plant.

The plant is the KL divergence that training answers to β: at rest it is a power of β, it is approached with a lag, it
answers an older β where there is a delay, and it is measured on noisy rollouts.

    KL_rest(beta) = kl_rest (beta / beta_rest)^-slope
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
from nashtune.kl.plant_trace import Trace

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
