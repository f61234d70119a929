from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from nashtune.evaluation.bootstrap import RATE, Resampling, estimate, resample_weights, resampled
from nashtune.evaluation.estimate import Estimate
from nashtune.evaluation.pairwise import weighted_means
from nashtune.evaluation.win_rates import win_rates


def variance(values_SN: np.ndarray, resamples: int = 20_000) -> float:
    """Of the resampled mean."""
    weights = resample_weights(*values_SN.shape, resamples, seed=0)
    return float(weighted_means(values_SN.reshape(1, -1), weights.reshape(len(weights), -1))[1:].var())


def test_weights_are_products_with_a_mean_of_one():
    weights = resample_weights(4, 9, 50, seed=1)
    assert weights.shape == (51, 4, 9)
    assert (weights[0] == 1).all()
    assert weights.mean(axis=(1, 2)) == pytest.approx(np.ones(51), abs=1e-12)
    of_seeds, of_prompts = weights.mean(axis=2), weights.mean(axis=1)
    assert weights == pytest.approx(of_seeds[:, :, None] * of_prompts[:, None, :], abs=1e-12)
    assert of_seeds[1:].sum(axis=1) == pytest.approx(np.full(50, 4.0))
    drawn = of_seeds[1:] * 3 / 4
    assert drawn == pytest.approx(drawn.round(), abs=1e-12)


def test_two_seeds_are_drawn_one_at_a_time():
    of_seeds = resample_weights(2, 5, 100, seed=0)[1:].mean(axis=2)
    assert {tuple(row) for row in of_seeds.round(9)} == {(0.0, 2.0), (2.0, 0.0)}


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_variance_of_separate_effects_of_seeds_and_prompts_is_unbiased(seeds: int):
    random = np.random.default_rng(seeds)
    of_seed, of_prompt = random.normal(size=(seeds, 1)), random.normal(size=(1, 40))
    expected = of_seed.var(ddof=1) / seeds + of_prompt.var() / 40
    assert variance(of_seed + of_prompt) == pytest.approx(expected, rel=0.05)


def test_noise_of_single_answers_counts_up_to_three_times():
    found = [variance(np.random.default_rng(k).normal(size=(10, 50)), 1000) for k in range(20)]
    assert np.mean(found) * 500 == pytest.approx(3.0, rel=0.1)


def test_only_what_there_is_more_than_one_of_is_resampled():
    assert resampled(3, 9) == ("seeds", "prompts")
    assert (resampled(1, 9), resampled(3, 1), resampled(1, 1)) == (("prompts",), ("seeds",), ())
    assert resample_weights(1, 1, 100, seed=0).shape == (1, 1, 1)
    alone = estimate(np.array([0.25]), 0.95)
    assert alone.value == 0.25 and np.isnan(alone.low) and np.isnan(alone.high)


def test_an_estimate_has_the_quantiles_of_its_resamples():
    values = np.concatenate([[[7.0, 1.0]], np.column_stack([np.arange(101.0), np.full(101, np.nan)])])
    found = estimate(values, 0.9)
    assert found.value.tolist() == [7.0, 1.0]
    assert (found.low[0], found.high[0]) == pytest.approx((5.0, 95.0))
    assert np.isnan(found.low[1]) and np.isnan(found.high[1])


def test_with_one_seed_intervals_are_those_of_a_run_and_widened():
    """`win_rates`, at the end of a game, has the same intervals."""
    random = np.random.default_rng(3)
    answers = {name: [f"{x:.6f}" for x in random.normal(size=30)] for name in ("start", "main@1", "main@2")}

    def judge(_: object, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
        return np.array([1 / (1 + np.exp(float(b) - float(a))) for a, b in zip(first, second, strict=True)])

    run = win_rates(["p"] * 30, answers, judge, seed=11, resamples=500)
    p = np.array([one.p for one in run.comparisons]).reshape(3, 1, 30)
    rows = Resampling(1, 30, 500, level=0.95, seed=11)
    rates = weighted_means(p.reshape(3, 30), rows.weights_RK)
    plain, found = rows.percentiles(rates), rows.estimate(rates, RATE)
    places = np.triu_indices(3, 1)
    for mine, its in zip((found.value, found.low, found.high), (run.rates, run.low, run.high), strict=True):
        assert mine == pytest.approx(its[places], abs=1e-12)
    # t of 29 degrees of freedom over the normal quantile, and the variance of a mean, over that of resamples
    expected = 2.045 / 1.960 * np.sqrt(30 / 29)
    assert ((found.high - found.low) / (plain.high - plain.low)).mean() == pytest.approx(expected, rel=0.03)
    assert (found.low <= plain.low).all() and (found.high >= plain.high).all()


def coin_flips(seeds: int, prompts: int, worlds: int = 500) -> Estimate:
    """Win rates of equal policies by certain verdicts (worlds,)."""
    p = np.random.default_rng(prompts).binomial(1, 0.5, size=(worlds, seeds * prompts)).astype(float)
    rows = Resampling(seeds, prompts, 300, level=0.95, seed=0)
    return rows.estimate(weighted_means(p, rows.weights_RK), RATE)


@pytest.mark.parametrize("prompts", [2, 3, 4, 5, 6, 7, 8, 16, 64, 256])
def test_one_seed_with_few_prompts_does_not_call_equal_policies_different(prompts: int):
    """By quantiles alone 53 of 100 tables were called so with 2 prompts, 23 with 3, 12 with 4."""
    found = coin_flips(1, prompts)
    assert ((found.low > 0.5) | (found.high < 0.5)).mean() < 0.08


@pytest.mark.parametrize(("seeds", "prompts"), [(1, 3), (1, 16), (2, 4), (3, 2)])
def test_a_rate_of_one_is_not_certain(seeds: int, prompts: int):
    """The lower end is where so many wins in a row have a probability of 2.5 %."""
    rows = Resampling(seeds, prompts, 100, level=0.95, seed=0)
    always = weighted_means(np.ones((1, seeds * prompts)), rows.weights_RK)
    number = max(seeds, prompts)
    for values, ends in ((always, (0.025 ** (1 / number), 1.0)), (1 - always, (0.0, 1 - 0.025 ** (1 / number)))):
        found = rows.estimate(values, RATE)
        assert (found.low[0], found.high[0]) == pytest.approx(ends)
    saturated = rows.estimate(always - 1e-9, RATE)
    assert saturated.low[0] == pytest.approx(0.025 ** (1 / number))
    unbounded = rows.estimate(always)
    assert unbounded.low[0] == unbounded.high[0] == 1.0  # not a rate
    answered = rows.estimate(always, RATE, np.array([1.0]))
    assert answered.low[0] == pytest.approx(0.025 ** (1 / seeds))


def test_a_rate_of_one_covers_what_is_likely():
    """A true rate of 0.84, by 4 prompts: half of all tables of one seed say 1.00."""
    for seeds in (1, 2):
        p = np.random.default_rng(0).binomial(1, 0.84, size=(500, seeds * 4)).astype(float)
        rows = Resampling(seeds, 4, 300, level=0.95, seed=0)
        found = rows.estimate(weighted_means(p, rows.weights_RK), RATE)
        assert (found.value == 1).mean() > 0.2
        assert ((found.low <= 0.84) & (found.high >= 0.84)).mean() > 0.95


def test_intervals_of_two_seeds_or_more_are_what_they_were():
    """Widths of a table that is not unanimous, from before one seed had Student's t."""
    p = np.random.default_rng(5).binomial(1, 0.7, size=(1, 3 * 20)).astype(float)
    rows = Resampling(3, 20, 500, level=0.95, seed=0)
    found = rows.estimate(weighted_means(p, rows.weights_RK), RATE)
    assert (found.low[0], found.high[0]) == pytest.approx((0.49613390793383594, 0.8535146291510582), abs=1e-9)


def test_confidence_of_few_prompts_that_all_agree():
    rows = Resampling(1, 3, 50, level=0.95, seed=0)
    above = rows.above(np.tile([[1100.0, 1000.0, 1000.0]], (len(rows.weights_RK), 1)))
    assert above[0].tolist() == [0.5, 0.875, 0.875] and above[1].tolist() == [0.125, 0.5, 0.5]


def coverage(
    seeds: int, prompts: int, effects: tuple[float, float, float], *, widened: bool = True, alone: bool = False
) -> float:
    """How often the 95 % interval of a mean holds the truth, which is 0.

    Args:
        seeds: How many.
        prompts: How many.
        effects: Standard deviations of what seeds, prompts and single answers do.
        widened: As `rate` does.
        alone: Answers are resampled one at a time, as if all were independent.
    """
    random, held = np.random.default_rng(seeds), 0
    rows = Resampling(seeds, prompts, 300, level=0.95, seed=0)
    size = seeds * prompts
    if alone:
        rows.weights_RK[1:301] = random.multinomial(size, [1 / size] * size, 300)
    for _ in range(300):
        values = sum(
            scale * random.normal(size=shape)
            for scale, shape in zip(effects, ((seeds, 1), (1, prompts), (seeds, prompts)), strict=True)
        )
        means = weighted_means(values.reshape(1, -1), rows.weights_RK)
        found = rows.estimate(means) if widened else rows.percentiles(means)
        held += int(found.low[0] <= 0 <= found.high[0])
    return held / 300


FAVOURABLE, UNFAVOURABLE = (40, (0.1, 0.3, 0.3)), (64, (0.1, 0.1, 0.1))


def test_intervals_cover_where_those_over_single_answers_do_not():
    assert coverage(5, *FAVOURABLE) > 0.92
    assert coverage(3, *FAVOURABLE) > 0.92
    assert coverage(5, *FAVOURABLE, widened=False, alone=True) < 0.7


def test_intervals_cover_where_trainings_differ_more_than_prompts():
    for seeds, least, without in ((2, 0.82, 0.75), (3, 0.9, 0.9), (5, 0.91, 0.93)):
        assert coverage(seeds, *UNFAVOURABLE) > least
        assert coverage(seeds, *UNFAVOURABLE, widened=False) < without


def test_intervals_are_those_of_student_where_seeds_alone_differ():
    values = np.array([0.1, 0.4, 0.2])
    rows = Resampling(3, 50, 4000, level=0.95, seed=0)
    means = weighted_means(np.repeat(values, 50)[None], rows.weights_RK)
    found, (error, freedom) = rows.estimate(means), rows.errors(means)
    expected = values.std(ddof=1) / np.sqrt(3)
    assert error[0] == pytest.approx(expected, rel=0.03) and freedom[0] == pytest.approx(2.0, rel=0.1)
    assert (found.high - found.low)[0] / 2 == pytest.approx(4.303 * expected, rel=0.05)
    rate_like = rows.estimate(means, (0.0, 1.0))
    assert rate_like.low[0] == 0.0 and rate_like.high[0] == found.high[0]


def test_confidence_in_an_order_is_no_surer_than_the_seeds():
    """Both of two seeds say so: a share of resamples would be 1."""
    values = np.repeat([[0.1, 0.3], [0.0, 0.0]], 50, axis=1)
    rows = Resampling(2, 50, 2000, level=0.95, seed=0)
    above = rows.above(weighted_means(values, rows.weights_RK))
    assert above[0, 1] == pytest.approx(0.852, abs=0.01)  # Student's t of 2 with one degree of freedom
    assert above + above.T == pytest.approx(np.ones((2, 2)))
    assert np.isnan(Resampling(1, 1, 10, level=0.95, seed=0).above(np.array([[1.0, 2.0]]))).all()


def test_a_pair_with_few_answered_prompts_has_their_freedom_with_two_seeds_too():
    """The rest of the variance, which is not the seeds', is known from as many prompts as were answered."""
    random = np.random.default_rng(0)
    rows = Resampling(2, 40, 2000, level=0.95, seed=0)
    answered = np.arange(40) < 3
    values = np.where(answered, np.tile(random.normal(size=40), (2, 1)), np.nan).reshape(1, -1)
    means = weighted_means(values, rows.weights_RK)
    (whole, of_all), (error, freedom) = rows.errors(means), rows.errors(means, np.array([3.0]))
    assert error == whole and of_all > 20 and freedom < 3


def test_the_error_of_a_mean_over_few_prompts_is_that_of_any_mean():
    values = np.array([[0.0, 1.0, 3.0, 7.0]])
    rows = Resampling(1, 4, 20_000, level=0.95, seed=0)
    (error,), (freedom,) = rows.errors(weighted_means(values, rows.weights_RK))
    assert error == pytest.approx(values.std(ddof=1) / 2, rel=0.03) and freedom == 3


def test_of_a_policy_with_one_seed_all_of_the_error_may_be_the_seeds():
    values = np.concatenate([np.random.default_rng(0).normal(size=12), np.full(12, np.nan)])[None]
    rows = Resampling(2, 12, 2000, level=0.95, seed=0)
    _, (freedom,) = rows.errors(weighted_means(values, rows.weights_RK))
    assert freedom == pytest.approx(1.0)
