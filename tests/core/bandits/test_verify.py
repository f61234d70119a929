"""The specs themselves on the bandit: loss, KL controller and oracle as they train language models."""

from __future__ import annotations

import numpy as np
import pytest

from bandit_numbers import (
    DETACHED_FLOORED,
    ESTIMATE,
    EXACT_FLOORED,
    GOLD,
    REFERENCE,
    SIGMA,
    V,
    arms,
    spec,
    variance_weighted,
)
from nashtune.bandits.closed_forms import ellipsoid, reverse, sphere, vanilla, weighted
from nashtune.bandits.coefficients import Coefficients, components_of
from nashtune.bandits.optimum import gradient_run
from nashtune.bandits.table import drawn_table, table_of
from nashtune.bandits.theory import matched_beta, mean_kl, vanilla_form
from nashtune.bandits.verify import verify_bandit
from nashtune.errors import CheckFailed, InputError

POLICY_GRADIENTS = ("reinforce", "rloo", "ppo", "uncertainty_rlhf", "uncertainty_rlhf_rloo")


def verified(one, *, prompts=None, draws=50, seed=0):
    return verify_bandit(one, prompts or [arms()], draws=draws, seed=seed)


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
@pytest.mark.parametrize(("variant", "expected"), [("detached", DETACHED_FLOORED), ("exact", EXACT_FLOORED)])
def test_specs_reach_the_variance_aware_closed_forms(name, variant, expected):
    report = verified(spec(name, kl=variance_weighted(variant=variant)))
    assert report.spec_line.policy[0] == pytest.approx(expected, abs=1e-9)
    assert report.distance < 1e-12 and report.own.name == "π₀ exp((R − λ)/β)"
    assert report.beta[0] == pytest.approx(np.maximum(V, 0.25))


@pytest.mark.parametrize(("variant", "expected"), [("detached", DETACHED_FLOORED), ("exact", EXACT_FLOORED)])
def test_gradient_steps_of_reinforce_reach_them(variant, expected):
    components = components_of(spec("reinforce", kl=variance_weighted(variant=variant)))
    coefficients = Coefficients(components, table_of([arms()]))
    (log_policy,) = gradient_run(coefficients, coefficients.table, step=0.3, iterations=1000)
    assert np.exp(log_policy) == pytest.approx(expected, abs=1e-6)


def test_the_precision_form_centres_the_reward_over_the_prompt():
    kl = variance_weighted(variant="precision", v_min=0.01)
    for name in ("rloo", "reinforce"):
        report = verified(spec(name, kl=kl))
        expected = vanilla((ESTIMATE - REFERENCE @ ESTIMATE) / V, REFERENCE, 1.0)
        assert report.spec_line.policy[0] == pytest.approx(expected, abs=1e-12)
        assert report.spec_line.kl[0] == pytest.approx(2.2966041965, abs=1e-9)
        assert report.spec_line.gold[0] == pytest.approx(0.9997330546, abs=1e-9)


@pytest.mark.parametrize("name", ["reinforce", "rloo", "ppo", "ppo_uwo", "ppo_lcb"])
def test_a_fixed_coefficient_has_the_vanilla_optimum(name):
    penalties = {"ppo_uwo": 0.5 * SIGMA**2, "ppo_lcb": SIGMA}
    settings = {"ppo_uwo": {"oracle__penalty": 0.5}, "ppo_lcb": {"oracle__penalty": 1.0}}.get(name, {})
    report = verified(spec(name, kl={"name": "fixed", "beta": 1.0}, **settings))
    expected = vanilla(ESTIMATE - penalties.get(name, 0.0), REFERENCE, 1.0)
    assert report.spec_line.policy[0] == pytest.approx(expected, abs=1e-12)


def test_a_controller_that_moves_is_asked_at_its_first_beta_and_it_is_said():
    adaptive = verified(spec("rloo", kl={"name": "adaptive", "beta": 1.0}))
    fixed = verified(spec("rloo", kl={"name": "fixed", "beta": 1.0}))
    assert adaptive.spec_line.policy[0] == pytest.approx(fixed.spec_line.policy[0], abs=1e-12)
    said = "kl adaptive is asked at its first β, and training moves it after each update: all of this is of the first β"
    assert said in adaptive.notes
    others = [fixed, verified(spec("uncertainty_rlhf_rloo"))]
    assert not any("first β" in note for one in others for note in one.notes)


def test_grpo_holds_the_reference_and_not_the_policy():
    report = verified(spec("grpo", kl__beta=0.3))
    scaled = (ESTIMATE - ESTIMATE.mean()) / (ESTIMATE.std(ddof=1) + 1e-4)
    expected = reverse(scaled, REFERENCE, np.full(6, 0.3))[0]
    assert report.spec_line.policy[0] == pytest.approx(expected, abs=1e-12)
    assert report.own.name == "π₀ / (1 − (R − λ)/β), R as the loss scales it" and report.distance < 1e-12
    plain = verified(spec("grpo", kl__beta=0.3, loss__scale="none"))
    assert plain.spec_line.policy[0] == pytest.approx(reverse(ESTIMATE, REFERENCE, np.full(6, 0.3))[0], abs=1e-12)
    with pytest.raises(
        CheckFailed, match="divides a prompt's advantages by their spread, and the KL penalty is among them"
    ):
        verified(spec("grpo", kl__beta=0.3, loss__kl_in="reward", loss__kl_estimator="k1"))


def test_risk_is_that_of_the_closed_form_on_the_same_draws():
    report = verified(spec("uncertainty_rlhf_rloo", kl=variance_weighted()), draws=3000, seed=3)
    R = GOLD + SIGMA * np.random.default_rng(3).standard_normal((3000, 6))
    policies = weighted(R, REFERENCE, np.maximum(V, 0.25))[0]
    gains = (policies - REFERENCE) @ GOLD
    found = report.spec_line.risk
    assert report.spec_line.gains == pytest.approx(gains, abs=1e-12)
    assert (found.value, found.quantile_5) == (float((gains < 0).mean()), pytest.approx(np.quantile(gains, 0.05)))
    assert found.method == "monte_carlo" and found.draws == 3000 and found.standard_error > 0
    vanilla_line, detached_line, matched = report.theory
    assert vanilla_line.gains == pytest.approx((vanilla(R, REFERENCE, 1.0) - REFERENCE) @ GOLD, abs=1e-12)
    assert detached_line.gains == pytest.approx((weighted(R, REFERENCE, V)[0] - REFERENCE) @ GOLD, abs=1e-12)
    assert matched.mean_kl == pytest.approx(report.spec_line.mean_kl, rel=1e-6)
    assert report.quadratic["vanilla"] == pytest.approx(0.190907525799, abs=1e-12)
    assert report.quadratic["aware"] == pytest.approx(0.035141824772, abs=1e-12)


def test_a_constant_variance_is_plain_reinforcement_learning():
    same = [arms(sigma=np.full(6, 0.7))]
    aware = verified(spec("uncertainty_rlhf", kl__beta=0.5), prompts=same)
    plain = verified(spec("ppo", kl={"name": "fixed", "beta": 0.5}), prompts=same)
    assert aware.spec_line.policy[0] == pytest.approx(plain.spec_line.policy[0], abs=1e-13)
    assert aware.spec_line.gains == pytest.approx(plain.spec_line.gains, abs=1e-12)
    assert aware.quadratic["aware"] == pytest.approx(aware.quadratic["vanilla"], abs=1e-15)


def test_without_noise_everything_is_exact():
    report = verified(spec("rloo", kl__beta=0.5), prompts=[arms(sigma=np.zeros(6), estimate=None)])
    assert report.spec_line.risk.method == "exact" and report.spec_line.risk.value == 0.0
    assert report.spec_line.risk.mean_gain == pytest.approx(report.spec_line.gain)
    assert report.quadratic == {"vanilla": 0.0, "aware": None}
    assert any("an arm without noise" in note for note in report.notes)


def test_several_prompts_share_one_normaliser():
    small = arms(rewards=[1.0, 0.0], sigma=[1.0, 3.0], reference=[0.3, 0.7], estimate=[0.8, 0.1])
    report = verified(spec("uncertainty_rlhf_rloo", kl=variance_weighted(v_min=0.01)), prompts=[arms(), small])
    mean = (REFERENCE @ SIGMA**2 + 0.3 * 1.0 + 0.7 * 9.0) / 2.0
    first = weighted(ESTIMATE, REFERENCE, SIGMA**2 / mean)[0]
    second = weighted(np.array([0.8, 0.1]), np.array([0.3, 0.7]), np.array([1.0, 9.0]) / mean)[0]
    assert report.spec_line.policy[0] == pytest.approx(first, abs=1e-12)
    assert report.spec_line.policy[1] == pytest.approx(second, abs=1e-12)
    found = report.to_dict()
    assert len(found["policy"]) == 2 and len(found["closed_form"]["lambda"]) == 2
    assert found["kl"] == pytest.approx(float(report.spec_line.kl.mean()))


def test_members_give_estimate_and_variance():
    heads = np.random.default_rng(5).normal(GOLD, SIGMA, (4, 6))
    prompts = [arms(estimate=None, members=heads)]
    kl = variance_weighted(v_min=1e-6, v_max=1e6)
    report = verified(spec("uncertainty_rlhf_rloo", kl=kl), prompts=prompts)
    s2 = heads.var(0, ddof=1)
    expected = weighted(heads.mean(0), REFERENCE, s2 / (REFERENCE @ s2))[0]
    assert report.spec_line.policy[0] == pytest.approx(expected, abs=1e-12)
    worst = verified(
        spec("ppo_uwo", kl__beta=1.0, oracle={"name": "reward_ensemble", "aggregate": "wco", "penalty": None}),
        prompts=prompts,
    )
    assert worst.spec_line.policy[0] == pytest.approx(vanilla(heads.min(0), REFERENCE, 1.0), abs=1e-12)


def test_pairs_reach_the_closed_forms_too():
    aware = verified(spec("uncertainty_rlhf_pairwise", kl=variance_weighted()), draws=60)
    assert aware.spec_line.policy[0] == pytest.approx(DETACHED_FLOORED, abs=1e-9) and aware.distance < 1e-9
    R = GOLD + SIGMA * np.random.default_rng(0).standard_normal((60, 6))
    gains = (weighted(R, REFERENCE, np.maximum(V, 0.25))[0] - REFERENCE) @ GOLD
    assert aware.spec_line.gains == pytest.approx(gains, abs=1e-8)
    plain = verified(spec("dpo", kl__beta=1.0), draws=2)
    assert plain.spec_line.policy[0] == pytest.approx(vanilla(ESTIMATE, REFERENCE, 1.0), abs=1e-10)
    other = verified(spec("ipo_sum"), draws=2)
    assert other.own is None and other.distance is None  # it has no β


def test_a_loss_that_compares_prompts_says_so():
    settings = {"loss__kl_in": "loss", "loss__kl_estimator": "k3", "kl__beta": 0.5}
    report = verified(spec("ppo", **settings), draws=500)
    assert any(note.startswith("the loss compares prompts with one another") for note in report.notes)
    assert not any("compares prompts" in note for note in verified(spec("rloo", **settings)).notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nash_md_pg", "judged against an opponent's"),
        ("kto", "reads examples, and a bandit has rollouts or pairs"),
        ("reward_bt", "it trains a reward model, but a bandit gives rewards"),
    ],
)
def test_specs_that_learn_from_something_else_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        verified(spec(name))


@pytest.mark.parametrize("name", ["uncertainty_rlhf_rloo", "uncertainty_rlhf"])
@pytest.mark.parametrize(("sigma", "scale"), [(1e-4, 1.0), (1e-10, 1.0), (1e-4, 1e5)])
def test_one_arm_that_is_almost_certain(name, sigma, scale):
    sigmas = scale * np.array([sigma, *SIGMA[1:]])
    prompts = [arms(rewards=scale * GOLD, sigma=sigmas, estimate=scale * ESTIMATE)]
    report = verified(spec(name, kl=variance_weighted(normalise="none", beta=0.1)), prompts=prompts)
    expected = weighted(scale * ESTIMATE, REFERENCE, 0.1 * sigmas**2)[0]
    assert report.spec_line.policy[0] == pytest.approx(expected, abs=1e-8) and report.distance < 1e-8
    assert any("the search started from the closed form" in note for note in report.notes)
    plain = verified(spec(name, kl=variance_weighted(beta=0.1)))
    assert not any("the search started" in note for note in plain.notes)
    if sigma == 1e-4:
        precise = verified(
            spec(name, kl=variance_weighted(variant="precision", normalise="none", beta=0.1)), prompts=prompts
        )
        assert precise.distance < 1e-8


@pytest.mark.parametrize("name", ["uncertainty_rlhf_rloo", "uncertainty_rlhf_pairwise"])
def test_a_variance_of_0_is_named(name):
    prompts = [arms(sigma=[0.3, 0.3, 0.0, 1.0, 2.0, 2.5])]
    with pytest.raises(CheckFailed, match="six: v is 0 for arm 2: nothing holds the policy there"):
        verified(spec(name, kl=variance_weighted(normalise="none")), prompts=prompts)


def test_small_steps_on_the_mean_of_members():
    K, draws = 10, 200_000
    report = verified(
        spec("rloo", kl__beta=1.0), prompts=[arms(estimate=None, members=np.tile(ESTIMATE, (K, 1)))], draws=2
    )
    assert report.quadratic["vanilla"] == pytest.approx(0.00284, abs=5e-6)
    assert any("all members say the same" in note for note in report.notes)
    R = GOLD + SIGMA / K**0.5 * np.random.default_rng(0).standard_normal((draws, 6))
    share = float((sphere(R) @ GOLD < 0).mean())
    assert abs(share - report.quadratic["vanilla"]) <= 3.0 * (0.00284 / draws) ** 0.5
    pair = [arms(estimate=None, members=np.tile(ESTIMATE, (2, 1)))]
    found = verified(spec("rloo", kl__beta=1.0), prompts=pair, draws=2).quadratic["aware"]
    R = GOLD + SIGMA / 2**0.5 * np.random.default_rng(0).standard_normal((draws, 6))
    share = float((ellipsoid(R, SIGMA**2) @ GOLD < 0).mean())
    assert abs(share - found) <= 3.0 * (found / draws) ** 0.5


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_vanilla_line_is_at_the_spec_s_divergence_on_any_scale(scale):
    table = drawn_table([arms(rewards=scale * GOLD, sigma=scale * SIGMA)], 500, np.random.default_rng(0))
    for beta in (1e-1, 1.0, 1e3, 1e7):
        target = mean_kl(vanilla_form(beta * scale)(table)[0], table)
        found = mean_kl(vanilla_form(matched_beta(table, target))(table)[0], table)
        assert found == pytest.approx(target, rel=1e-6, abs=1e-15)
    assert matched_beta(table, 2.4) is None  # the rarest arm alone is log 10 = 2.30 nats away
    same = arms(rewards=np.ones(6), sigma=np.zeros(6), estimate=None)
    assert matched_beta(table_of([same]), 0.1) is None


def test_no_line_at_a_divergence_that_vanilla_does_not_reach():
    # the spec gives up the arm of highest estimate, which is common, for a rare one that is certain
    prompts = [arms(rewards=[1.0, 0.9], sigma=[1.0, 0.0], reference=[0.9, 0.1], estimate=[1.0, 0.9])]
    report = verified(
        spec("ppo_uwo", kl={"name": "fixed", "beta": 0.01}, oracle__penalty=50.0), prompts=prompts, draws=200
    )
    assert [line.name for line in report.theory] == ["vanilla KL, π₀ exp(R/β)"]
    assert any("nats at any β: no line at equal KL" in note for note in report.notes)


def test_members_without_noise_are_noted():
    heads = np.random.default_rng(5).normal(GOLD, SIGMA, (4, 6))
    prompts = [arms(sigma=np.zeros(6), estimate=None, members=heads)]
    report = verified(spec("rloo", kl__beta=0.5), prompts=prompts)
    assert report.spec_line.risk.method == "exact" and any("no arm is noisy (σ = 0)" in note for note in report.notes)
    quiet = verified(spec("rloo", kl__beta=0.5), prompts=[arms(sigma=np.zeros(6), estimate=None)])
    assert not any("no arm is noisy" in note for note in quiet.notes)
