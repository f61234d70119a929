"""The test bench: what it measures, and that its linear theory says what its simulation does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nashtune.kl.adaptive import AdaptiveKL
from nashtune.kl.fixed import FixedKL
from nashtune.kl.plant import Plant, reacts, rollouts, simulate, spectral_radius
from nashtune.kl.plant_trace import Trace

QUIET = Plant(noise=0.0)


def trace(kl: list[float], setpoint: float | None = 1.0) -> Trace:
    return Trace(name="", setpoint=setpoint, kl=kl, measured=kl, beta=[0.1] * len(kl), radius=None)


def test_the_plant_rests_where_it_is_told_to_and_gets_there_with_its_lag():
    plant = Plant(kl_rest=6.0, beta_rest=0.2, slope=2.0, lag=4.0)
    assert plant.at_rest(0.2) == 6.0
    assert plant.at_rest(0.4) == pytest.approx(1.5)
    kl = 0.0
    for _ in range(4):
        kl = plant.step(kl, 0.2)
    assert kl == pytest.approx(6.0 * (1.0 - 0.75**4))


def test_rollouts_show_the_kl_with_the_noise_that_is_asked_for():
    plant = Plant(kl_rest=5.0, noise=0.1, completions=64)
    random = np.random.default_rng(0)
    means = []
    for _ in range(400):
        batch = rollouts(3.0, plant, random)
        means.append(float((batch.token_logp - batch.anchors["ref"]).mean()))
    assert np.mean(means) == pytest.approx(3.0, abs=5 * 0.5 / math.sqrt(400))
    assert np.std(means) == pytest.approx(0.5, rel=0.15)


def test_a_fixed_beta_takes_the_plant_where_it_rests():
    plant = Plant(beta_rest=0.1, noise=0.0, lag=5.0)
    found = simulate(FixedKL(beta=0.1), plant, 200)
    assert found.kl[-1] == pytest.approx(6.0) and found.beta == pytest.approx([0.1] * 200)
    assert found.radius is None and found.setpoint is None
    assert not reacts(FixedKL(beta=0.1)) and reacts(AdaptiveKL(beta=0.1))


@pytest.mark.parametrize("gain", ["horizon", "constant"])
def test_both_gains_find_the_target_without_delay(gain):
    found = simulate(AdaptiveKL(beta=0.1, gain=gain), Plant(beta_rest=0.2), 400)
    assert found.settled is not None and found.settled < 300
    assert abs(found.final_error) < 0.05 and found.beta[-1] == pytest.approx(0.2, rel=0.1)
    assert found.overshoot > 0.5  # the KL answers late, and β falls while it is small


def test_delay_makes_it_oscillate():
    found = simulate(AdaptiveKL(beta=0.1, gain="constant"), Plant(beta_rest=0.2, delay=20), 400)
    assert found.settled is None and found.ripple > 0.1
    assert found.radius is not None and found.radius > 1.0


@pytest.mark.parametrize(("delay", "gain"), [(0, "horizon"), (0, "constant"), (4, "horizon"), (12, "constant")])
def test_the_linear_theory_is_what_a_small_disturbance_does(delay, gain):
    """Growth of the loop's deviation per round, from a simulation beside the target, against the eigenvalue."""
    plant = Plant(noise=0.0, delay=delay, lag=10.0)
    controller = AdaptiveKL(beta=0.1, gain=gain)
    radius = spectral_radius(controller, plant)
    assert radius is not None and controller.state_dict() == {"beta": 0.1}
    kl, pending, sizes = 6.0 * (1.0 + 1e-8), [0.1] * (delay + 1), []
    for _ in range(400):
        batch = rollouts(kl, plant, np.random.default_rng(0))
        beta = controller.beta(batch)
        means = {name: float(value.mean()) for name, value in controller.report(batch, beta).items()}
        controller.observe_round(means, plant.completions)
        pending = [*pending[1:], float(beta)]
        kl = plant.step(kl, pending[0])
        sizes.append(math.hypot(math.log(kl / 6.0), math.log(float(controller.beta(batch)) / 0.1)))
    window = 100  # averages over the swings
    early, late = (max(sizes[i : i + window]) for i in (100, 300))
    assert (late / early) ** (1.0 / 200.0) == pytest.approx(radius, abs=2e-3)


def test_measures_of_a_trace():
    settles = trace([0.0, 0.5, 1.5, 1.05, 1.0, 1.0, 1.0, 1.0])
    assert settles.settled == 4 and settles.overshoot == pytest.approx(0.5)
    assert settles.final_error == 0.0 and settles.ripple == 0.0
    swings = trace([0.5, 1.5] * 8)
    assert swings.settled is None and swings.ripple == pytest.approx(0.5)
    assert trace([1.0] * 7 + [2.0]).settled is None
    assert trace([1.0] * 8).settled == 1
    free = trace([0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], setpoint=None)
    assert free.target == 2.0 and free.settled == 3 and free.final_error == 0.0


def test_the_noise_is_that_of_its_seed():
    found = [simulate(AdaptiveKL(beta=0.1), Plant(seed=seed), 30).measured for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert simulate(AdaptiveKL(beta=0.1), QUIET, 30).measured == pytest.approx(
        simulate(AdaptiveKL(beta=0.1), QUIET, 30).kl
    )
