from __future__ import annotations

import numpy as np
import pytest

from nashtune.evaluation.clusters import bootstrap_interval, cluster_mean


def test_with_one_row_a_cluster_the_error_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = cluster_mean(values, np.ones(50), np.arange(50))
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    assert found.se == pytest.approx(values.std(ddof=1) / 50**0.5, abs=1e-12)


def test_rows_of_a_cluster_count_together() -> None:
    found = cluster_mean(np.array([1.0, 0.0, 0.5, 1.0]), np.ones(4), np.array([0, 0, 1, 2]))
    assert found.mean == 0.625
    # sums off the mean are -1/4, -1/8 and 3/8
    assert found.se == pytest.approx((0.21875 * 3 / 2) ** 0.5 / 4, abs=1e-12)
    values = np.random.default_rng(1).normal(size=30)
    once = cluster_mean(values, np.ones(30), np.arange(30))
    thrice = cluster_mean(np.tile(values, 3), np.ones(90), np.tile(np.arange(30), 3))
    assert (thrice.mean, thrice.se) == pytest.approx((once.mean, once.se), abs=1e-12)
    assert thrice.rows == 90


def test_weights_share_a_row_out() -> None:
    split = cluster_mean(np.array([1.0, 0.0, 0.0, 1.0]), np.array([1 / 3, 1 / 3, 1 / 3, 1.0]), np.array([0, 0, 0, 1]))
    assert split.mean == pytest.approx((1 / 3 + 1) / 2)


def test_a_single_cluster_has_no_error_and_nothing_has_no_mean() -> None:
    alone = cluster_mean(np.array([1.0, 0.0]), np.ones(2), np.zeros(2, dtype=np.int64)).as_dict()
    assert alone == {"mean": 0.5, "se": None, "pairs": 2}
    assert cluster_mean(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)).as_dict() == {
        "mean": None,
        "se": None,
        "pairs": 0,
    }


def test_the_bootstrap_agrees_with_the_standard_error_and_its_seed_fixes_it() -> None:
    draw = np.random.default_rng(2)
    cluster = np.repeat(np.arange(300), 2)
    values = np.repeat(draw.normal(size=300), 2) + 0.1 * draw.normal(size=600)  # rows of a cluster are alike
    low, high = bootstrap_interval(values, np.ones(600), cluster, seed=0)
    found = cluster_mean(values, np.ones(600), cluster)
    assert (high - low) / (2 * 1.96 * found.se) == pytest.approx(1.0, abs=0.06)
    alone = cluster_mean(values, np.ones(600), np.arange(600))
    assert found.se > 1.3 * alone.se
    assert (low, high) == bootstrap_interval(values, np.ones(600), cluster, seed=0)
    assert (low, high) != bootstrap_interval(values, np.ones(600), cluster, seed=1)
