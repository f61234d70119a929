from __future__ import annotations

import numpy as np
import pytest

from nashtune.comparison.frontier import frontier
from nashtune.comparison.judged import K1, PER_TOKEN, Judged
from nashtune.comparison.ratings import Frontier
from nashtune.evaluation.bootstrap import Resampling


def found(kl: np.ndarray, reward: np.ndarray, policies: tuple[str, ...] = ("start", "a", "b")) -> Frontier:
    """Of policies with one seed."""
    m, _, prompts = kl.shape
    p = np.full((m * (m - 1) // 2, 1, prompts), 0.5)
    judged = Judged(policies=policies[:m], p=p, tokens=np.full(kl.shape, 9.0), kl=kl, reward=reward)
    rows = Resampling(1, prompts, 200, level=0.95, seed=0)
    made = frontier(judged, rows, np.full((201, m), 0.5))
    assert made is not None
    return made


def test_a_policy_that_hardly_moved_does_not_push_the_start_off():
    """The mean of log-ratios is below 0 in a third of such samples, where the divergence is 0.02."""
    random = np.random.default_rng(0)
    below = 0
    for _ in range(30):
        kl = np.stack([np.zeros((1, 32)), random.normal(0.02, 0.2, size=(1, 32))])
        one = found(kl, np.stack([np.zeros((1, 32)), np.ones((1, 32))]))
        below += one.kl.value[1] < 0
        assert one.best == ("start", "a") and one.share[0] == 1.0
    assert below > 3


def test_estimates_below_zero_are_no_nearer_to_the_start_than_each_other():
    kl = np.array([0.0, -0.05, -0.2])[:, None, None] * np.ones((3, 1, 8))
    one = found(kl, np.array([0.0, 2.0, 1.0])[:, None, None] * np.ones((3, 1, 8)))
    assert one.best == ("start", "a") and one.share.tolist() == [1.0, 1.0, 0.0]
    assert one.kl.value[2] < 0  # shown as it was estimated


def test_without_a_start_nothing_is_kept():
    kl = np.array([0.3, 0.1])[:, None, None] * np.ones((2, 1, 8))
    one = found(kl, np.array([1.0, 2.0])[:, None, None] * np.ones((2, 1, 8)), ("a", "b"))
    assert one.best == ("b",)


def test_a_start_without_an_answer_is_on_no_frontier():
    kl = np.array([np.nan, 0.1])[:, None, None] * np.ones((2, 1, 8))
    one = found(kl, np.array([1.0, 2.0])[:, None, None] * np.ones((2, 1, 8)))
    assert one.best == ("a",) and np.isnan(one.share[0])


@pytest.mark.parametrize("estimator", [PER_TOKEN, K1])
def test_a_divergence_that_is_never_below_zero_has_an_interval_that_is_not(estimator: str):
    """Of two seeds intervals are so wide that they would reach far below."""
    kl = np.array([0.0, 1.0])[:, None, None] * np.array([0.5, 1.5])[None, :, None] * np.ones((2, 2, 8))
    p = np.full((1, 2, 8), 0.5)
    judged = Judged(policies=("start", "a"), p=p, tokens=np.full(kl.shape, 9.0), kl=kl, kl_estimator=estimator)
    rows = Resampling(2, 8, 200, level=0.95, seed=0)
    made = frontier(judged, rows, np.full((len(rows.weights_RK), 2), 0.5))
    assert made is not None
    assert made.kl.low[1] == 0.0 if estimator == PER_TOKEN else made.kl.low[1] < -1.0
    assert made.kl.value[1] == 1.0 and made.kl.high[1] > 2.0
