"""The solver, on a loss that is written here: a score-function gradient with each way of adding a KL penalty."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bandit_numbers import DETACHED_FLOORED, ESTIMATE, EXACT_FLOORED, REFERENCE, V, arms
from nashtune.bandits.closed_forms import reverse, vanilla, weighted
from nashtune.bandits.coefficients import Coefficients, Components, refuse_unheld
from nashtune.bandits.optimum import gradient_run, optimum
from nashtune.bandits.table import drawn_table, table_of
from nashtune.bandits.theory import own_form
from nashtune.errors import CheckFailed
from nashtune.interfaces import Advantages, KLController, Loss, LossOutput


class PolicyGradient(Loss):
    rows = "rollouts"

    def __init__(self, penalty: str = "reward", whiten: bool = False) -> None:
        self.penalty, self.whiten = penalty, whiten

    def advantages(self, batch, step):
        h = batch.token_logp - batch.anchors["ref"]
        reward = batch.score - (step.beta * h if self.penalty == "reward" else 0.0)
        if self.whiten:
            reward = (reward - reward.mean()) / (reward.var(correction=0) + 1e-8).sqrt()
        return Advantages(advantage=reward)

    def __call__(self, batch, step):
        values = -batch.advantage * (batch.token_logp - batch.old).exp()
        h = batch.token_logp - batch.anchors["ref"]
        terms = {"k1": h, "k2": 0.5 * h**2, "k3": torch.expm1(-h) + h}
        if self.penalty in terms:
            values = values + step.beta * terms[self.penalty]
        return LossOutput(values=values)


class PerArm(KLController):
    """β v, v the given variance over its weighted mean, at least 0.25."""

    def __init__(self, beta: float = 1.0, exact: bool = False) -> None:
        self.strength, self.exact = beta, exact

    def beta(self, batch):
        mean = (batch.weight * batch.variance).sum() / batch.weight.sum()
        return self.strength * (batch.variance / mean).clamp_min(0.25)

    def reward(self, batch, beta):
        return batch.score - beta if self.exact else batch.score


class Fixed(KLController):
    def __init__(self, beta: float) -> None:
        self.value = beta

    def beta(self, batch):
        return torch.tensor(self.value, dtype=torch.float64)


def coefficients(loss, kl, table=None):
    components = Components(loss=loss, kl=kl, oracle=None, references=("ref",))
    found = Coefficients(components, table_of([arms()]) if table is None else table)
    found.steady()
    return found


def solved(loss, kl, table=None):
    found = coefficients(loss, kl, table)
    return np.exp(optimum(found, found.table))


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("exact", "expected"), [(False, DETACHED_FLOORED), (True, EXACT_FLOORED)])
def test_a_penalty_in_the_reward_has_the_weighted_optimum(whiten, exact, expected):
    (policy,) = solved(PolicyGradient(whiten=whiten), PerArm(exact=exact))
    assert policy == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("beta", [10.0, 0.1, 0.01, 0.001])
def test_strong_and_weak_penalties(beta):
    expected = weighted(ESTIMATE, REFERENCE, beta * np.maximum(V, 0.25))[0]
    for whiten in (False, True):
        assert solved(PolicyGradient(whiten=whiten), PerArm(beta))[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("beta", [1.0, 0.1, 0.001])
def test_penalties_in_the_loss(beta):
    (policy,) = solved(PolicyGradient("k2"), Fixed(beta))
    assert policy == pytest.approx(vanilla(ESTIMATE, REFERENCE, beta), abs=1e-12)
    (policy,) = solved(PolicyGradient("k3"), Fixed(beta))
    assert policy == pytest.approx(reverse(ESTIMATE, REFERENCE, np.full(6, beta))[0], abs=1e-12)


def test_without_a_penalty_that_holds_there_is_no_optimum():
    for loss, kl in ((PolicyGradient("k1"), Fixed(0.1)), (PolicyGradient("none"), Fixed(0.1))):
        with pytest.raises(CheckFailed, match="no KL penalty holds the policy back"):
            solved(loss, kl)


@pytest.mark.parametrize("penalty", ["reward", "k3"])
def test_thousands_of_draws_at_once(penalty):
    table = drawn_table([arms()], 2000, np.random.default_rng(0))
    policies = solved(PolicyGradient(penalty), Fixed(0.1), table)
    find = weighted if penalty == "reward" else reverse
    assert policies == pytest.approx(find(table.estimate, REFERENCE, np.full(6, 0.1))[0], abs=1e-11)


def test_prompts_of_different_sizes_do_not_mix():
    small = arms(rewards=[1.0, 0.0], sigma=[1.0, 1.0], reference=[0.3, 0.7], estimate=[1.0, 0.0])
    policies = solved(PolicyGradient(), Fixed(0.5), table_of([arms(), small]))
    assert policies[0] == pytest.approx(vanilla(ESTIMATE, REFERENCE, 0.5), abs=1e-13)
    assert policies[1] == pytest.approx(
        [*vanilla(np.array([1.0, 0.0]), np.array([0.3, 0.7]), 0.5), 0, 0, 0, 0], abs=1e-13
    )


def test_gradient_steps_reach_it_as_fast_as_they_should():
    for exact, after_100, after_1000, expected in (
        (False, 7.506e-02, 1.015e-07, weighted(ESTIMATE, REFERENCE, np.maximum(V, 0.25))[0]),
        (True, 8.305e-02, 2.284e-07, weighted(ESTIMATE, REFERENCE, np.maximum(V, 0.25), shift=1.0)[0]),
    ):
        found = coefficients(PolicyGradient(), PerArm(exact=exact))
        for iterations, distance in ((100, after_100), (1000, after_1000)):
            policy = np.exp(gradient_run(found, found.table, step=0.3, iterations=iterations)[0])
            assert np.abs(policy - expected).max() == pytest.approx(distance, rel=5e-4)


def test_the_closed_form_is_recognised_by_what_the_loss_does():
    found = own_form(coefficients(PolicyGradient(), PerArm()))
    assert found.name == "π₀ exp((R − λ)/β)" and found.level[0] == pytest.approx(0.6501086284, abs=1e-10)
    assert found.policy[0] == pytest.approx(DETACHED_FLOORED, abs=1e-9)
    assert own_form(coefficients(PolicyGradient(whiten=True), PerArm(exact=True))).policy[0] == pytest.approx(
        EXACT_FLOORED, abs=1e-9
    )
    assert own_form(coefficients(PolicyGradient("k3"), Fixed(0.1))).name == "π₀ / (1 − (R − λ)/β)"
    assert own_form(coefficients(PolicyGradient("k1"), Fixed(0.1))) is None


class Given(KLController):
    def __init__(self, beta) -> None:
        self.values = torch.as_tensor(beta, dtype=torch.float64)

    def beta(self, batch):
        return self.values


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_an_arm_that_is_held_weakly_has_an_optimum(scale, whiten):
    beta = np.array([1e-9, 0.01, 0.02, 0.1, 0.4, 0.6])
    table = table_of([arms(rewards=scale * np.array([1.0, 0.6, 0.2, 0.0, -0.4, -0.9]), estimate=scale * ESTIMATE)])
    expected = weighted(scale * ESTIMATE, REFERENCE, beta)[0]
    found = coefficients(PolicyGradient(whiten=whiten), Given(beta), table)
    own = own_form(found)
    assert own.policy[0] == pytest.approx(expected, abs=1e-15)
    started = np.exp(optimum(found, table, own.log_policy)[0])
    assert started == pytest.approx(expected, abs=1e-8)
    if not whiten and scale <= 1.0:
        assert np.exp(optimum(found, table)[0]) == pytest.approx(expected, abs=1e-8)


def test_a_slope_is_told_from_rounding_whatever_the_level_of_the_rewards():
    for level in (0.0, 1e6, -1e9):
        table = table_of([arms(estimate=ESTIMATE + level)])
        (policy,) = solved(PolicyGradient(), Fixed(0.5), table)
        assert policy == pytest.approx(vanilla(ESTIMATE, REFERENCE, 0.5), abs=1e-6)
        for penalty in ("k1", "none"):
            with pytest.raises(CheckFailed, match="no KL penalty holds the policy back"):
                solved(PolicyGradient(penalty), Fixed(0.1), table)


def test_a_coefficient_of_0_is_named():
    table = table_of([arms()])
    beta = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    with pytest.raises(CheckFailed, match="six: v is 0 for arm 2: nothing holds the policy there"):
        refuse_unheld(beta, table, ["six"])
    with pytest.raises(CheckFailed, match="six, where the noise is drawn: v is 0 for arm 2"):
        refuse_unheld(torch.cat([torch.ones(6), beta]), table.before(table), ["six"])
    refuse_unheld(torch.tensor(0.0), table, ["six"])
    refuse_unheld(None, table, ["six"])
