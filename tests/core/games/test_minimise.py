from __future__ import annotations

import numpy as np
import pytest
import torch

from nashtune.errors import CheckFailed
from nashtune.games.minimise import Minimiser
from tabular import normalised

ALL = np.ones(4, dtype=bool)
START = normalised(np.array([0.3, -1.0, 0.2, 0.5]))


def squares(weights: np.ndarray, targets: np.ndarray, anchor: np.ndarray):
    """sum W_ij ((u_i - u_j) - (a_i - a_j) - t_ij)^2 over all ordered pairs."""
    W, t, a = (torch.from_numpy(np.asarray(x, dtype=np.float64)) for x in (weights, targets, anchor))

    def objective(u: torch.Tensor) -> torch.Tensor:
        g = (u[:, None] - u[None, :]) - (a[:, None] - a[None, :])
        return (W * (g - t) ** 2).sum()

    return objective


def test_weighted_least_squares_take_the_mirror_step_from_any_start():
    """Sum of P (g - t)^2 over pairs drawn from mu: the minimiser is a + 2 t P mu, whatever mu, anchor and start."""
    random = np.random.default_rng(0)
    minimise = Minimiser([4], differences_only=True)
    for _ in range(5):
        P = np.triu(random.random((4, 4)), 1)
        P = P + np.tril(1 - P.T, -1) + 0.5 * np.eye(4)
        mu, anchor, start = (normalised(random.normal(size=4)) for _ in range(3))
        weights = np.outer(np.exp(mu), np.exp(mu)) * P
        found = minimise(squares(weights, np.full((4, 4), 0.35), anchor), start, ALL, 16)
        assert found == pytest.approx(normalised(anchor + 0.7 * P @ np.exp(mu)), abs=1e-12)


def test_an_action_that_no_row_holds_keeps_its_log_prob():
    weights = np.zeros((4, 4))
    weights[0, 1] = 1.0
    seen = np.array([True, True, False, False])
    for differences in (True, False):
        minimise = Minimiser([4], differences_only=differences)
        found = minimise(squares(weights, np.full((4, 4), 2.0), START), START, seen, 16)
        assert found[2:] == pytest.approx(START[2:], abs=1e-15)
        assert (found[0] - found[1]) - (START[0] - START[1]) == pytest.approx(2.0, abs=1e-12)
        assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-14)


def test_rows_that_do_not_connect_all_actions_take_the_step_of_least_norm():
    weights = np.zeros((4, 4))
    weights[0, 1] = weights[2, 3] = 1.0
    found = Minimiser([4], differences_only=True)(squares(weights, np.full((4, 4), 2.0), START), START, ALL, 16)
    assert found == pytest.approx(normalised(START + np.array([1.0, -1.0, 1.0, -1.0])), abs=1e-12)


def test_rare_actions_are_as_exact_as_common_ones():
    mu = normalised(np.array([0.0, -50.0, -120.0, -1.0]))
    P = np.full((4, 4), 0.5) + np.triu(np.full((4, 4), 0.3), 1) - np.tril(np.full((4, 4), 0.3), -1)
    weights = np.outer(np.exp(mu), np.exp(mu)) * P
    np.fill_diagonal(weights, 0.0)
    found = Minimiser([4], differences_only=True)(squares(weights, np.full((4, 4), 30.0), mu), START, ALL, 16)
    assert found == pytest.approx(normalised(mu + 60.0 * P @ np.exp(mu)), abs=1e-10)


def test_the_normaliser_counts_where_the_loss_sees_single_log_probs():
    """sum m (log pi - a - b)^2: at the minimum m (log pi - a - b) is proportional to pi."""
    m, b = np.array([0.4, 0.3, 0.2, 0.1]), np.array([1.0, -0.5, 2.0, 0.3])
    a = normalised(np.array([0.1, 0.4, -0.2, 0.0]))

    def objective(u: torch.Tensor) -> torch.Tensor:
        return (torch.from_numpy(m) * (u - torch.from_numpy(a + b)) ** 2).sum()

    found = Minimiser([4], differences_only=False)(objective, START, ALL, 4)
    ratio = m * (found - a - b) / np.exp(found)
    assert np.ptp(ratio) < 1e-11 and np.exp(found).sum() == pytest.approx(1.0)


def test_prompts_of_different_sizes_are_solved_at_once():
    weights, targets = np.zeros((5, 5)), np.zeros((5, 5))
    weights[0, 1] = weights[2, 3] = weights[3, 4] = 1.0
    targets[0, 1], targets[2, 3], targets[3, 4] = 1.0, 2.0, -0.5
    start = np.concatenate([normalised(np.zeros(2)), normalised(np.zeros(3))])
    objective = squares(weights, targets, np.zeros(5))
    found = Minimiser([2, 3], differences_only=True)(objective, start, np.ones(5, dtype=bool), 25)
    assert found[:2] == pytest.approx(normalised(np.array([1.0, 0.0])), abs=1e-12)
    assert found[2:] == pytest.approx(normalised(np.array([2.0, 0.0, 0.5])), abs=1e-12)


def test_a_large_hessian_in_blocks_is_the_same(monkeypatch):
    weights, targets = np.ones((4, 4)), np.arange(16.0).reshape(4, 4)
    minimise = Minimiser([4], differences_only=True)
    whole = minimise(squares(weights, targets, START), START, ALL, 16)
    monkeypatch.setattr("nashtune.games.minimise.COLUMN_BYTES", 1)
    assert minimise(squares(weights, targets, START), START, ALL, 16) == pytest.approx(whole, abs=1e-15)


def test_a_minimum_at_infinity_and_a_kink_are_told_apart():
    minimise = Minimiser([4], differences_only=True)
    with pytest.raises(CheckFailed, match=r"no finite minimiser: log-ratios have moved \d+ nats apart"):
        minimise(lambda u: torch.nn.functional.softplus(u[1] - u[0]), START, np.array([True, True, False, False]), 1)
    with pytest.raises(CheckFailed, match="as a hinge does"):
        minimise(lambda u: (3.0 - u[0] + u[1]).clamp(min=0.0), START, np.array([True, True, False, False]), 1)
