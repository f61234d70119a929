from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from nashtune.comparison.length_control import OVERLAP, PRIOR, length_controlled, overlaps


def planted(theta: list[float], phi: float, tokens: np.ndarray) -> tuple[np.ndarray, float]:
    """P(first > second) of the regression itself, and its scale."""
    longer = np.array([tokens[i] - tokens[j] for i, j in combinations(range(len(tokens)), 2)])
    scale = float(np.sqrt((longer**2).mean()))
    return expit(np.array(theta)[:, None] + phi * np.tanh(longer / scale)), scale


def lengths(policies: int, answers: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(5, 60, (policies, answers)) + 12.0 * np.arange(policies)[:, None]


def test_what_was_planted_comes_back():
    theta, tokens = [0.4, -0.8, 0.1], lengths(3, 4000)
    p, scale = planted(theta, 1.5, tokens)
    rates, effect, found_scale = length_controlled(p, tokens, np.ones((1, 4000)))
    assert found_scale == pytest.approx(scale, abs=1e-9)
    assert effect[0] == pytest.approx(1.5, abs=1e-3)  # the prior pulls it by so little
    assert rates[0] == pytest.approx(expit(theta), abs=1e-3)


def test_a_judge_of_length_alone_leaves_one_half():
    tokens = lengths(2, 500)
    p, _ = planted([0.0], 4.0, tokens)
    assert p.mean() < 0.36  # the second policy is longer, and looks much better
    rates, effect, _ = length_controlled(p, tokens, np.ones((1, 500)))
    assert rates[0, 0] == pytest.approx(0.5, abs=5e-3)
    assert effect[0] == pytest.approx(4.0, abs=0.1)


def test_equal_lengths_and_an_indifferent_judge_leave_win_rates_as_they_are():
    random = np.random.default_rng(0)
    p = random.random((3, 50))
    rates, effect, scale = length_controlled(p, np.full((3, 50), 30.0), np.ones((1, 50)))
    assert rates[0] == pytest.approx(p.mean(axis=1), abs=1e-12)
    assert (effect[0], scale) == (0.0, 0.0)
    constant, effect, _ = length_controlled(np.full((3, 50), 0.7), lengths(3, 50), np.ones((1, 50)))
    assert constant[0] == pytest.approx([0.7] * 3, abs=1e-12)
    assert effect[0] == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("hard", [False, True])
def test_it_is_the_minimum_of_the_penalised_loss_and_weights_are_repetitions(hard: bool):
    random = np.random.default_rng(4)
    p, tokens, counts = random.random((3, 40)), lengths(3, 40, seed=1), random.integers(0, 4, 40)
    p = np.round(p) if hard else p
    p[1, :7] = np.nan
    tokens[0, 9] = np.nan
    pairs = list(combinations(range(3), 2))
    longer = np.array([tokens[i] - tokens[j] for i, j in pairs])
    seen = ~np.isnan(p) & ~np.isnan(longer)
    x = np.tanh(np.where(seen, longer, 0.0) / np.sqrt((longer[seen] ** 2).mean()))
    weights = np.array([np.ones(40), counts])
    rates, effect, _ = length_controlled(p, tokens, weights)
    for row, repeats in enumerate(weights.astype(int)):

        def loss(u: np.ndarray, repeats: np.ndarray = repeats) -> float:
            odds = u[:3, None] + u[3] * x
            terms = np.where(seen, np.logaddexp(0, odds) - np.nan_to_num(p) * odds, 0.0)
            return float(np.repeat(terms, repeats, axis=1).sum() + PRIOR / 2 * u[3] ** 2)

        expected = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-7}).x
        assert logit(rates[row]) == pytest.approx(expected[:3], abs=1e-5)
        assert effect[row] == pytest.approx(expected[3], abs=1e-5)


def test_the_order_of_policies_does_not_matter():
    random = np.random.default_rng(7)
    p, tokens = random.random((3, 60)), lengths(3, 60)
    rates, effect, scale = length_controlled(p, tokens, np.ones((1, 60)))
    turned = 1 - p[[2, 1, 0]]  # pairs of (2, 1, 0): (2, 1), (2, 0), (1, 0)
    back, effect_back, scale_back = length_controlled(turned, tokens[::-1], np.ones((1, 60)))
    assert back[0] == pytest.approx(1 - rates[0, [2, 1, 0]], abs=1e-10)
    assert effect_back[0] == pytest.approx(effect[0], abs=1e-10)
    assert scale_back == pytest.approx(scale)


def test_a_pair_without_a_loss_keeps_its_rate_and_says_nothing_of_length():
    tokens = lengths(3, 200)
    p, _ = planted([0.0, 0.3, -0.2], 1.0, tokens)
    won, lost = np.vstack([np.ones((1, 200)), p[1:]]), np.vstack([np.zeros((1, 200)), p[1:]])
    rates, effect, _ = length_controlled(won, tokens, np.ones((1, 200)))
    rates_lost, effect_lost, _ = length_controlled(lost, tokens, np.ones((1, 200)))
    assert (rates[0, 0], rates_lost[0, 0]) == (1.0, 0.0)
    assert effect[0] == pytest.approx(1.0, abs=0.01) and effect_lost[0] == pytest.approx(effect[0], abs=1e-12)


def test_lengths_that_decide_everything_give_finite_numbers():
    tokens = lengths(2, 300)
    p = (tokens[0] > tokens[1]).astype(float)[None]
    rates, effect, _ = length_controlled(p, tokens, np.ones((1, 300)))
    assert 0.3 < rates[0, 0] < 0.7
    assert 5 < effect[0] < 30


def test_pieces_of_resamples_give_the_same(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(8)
    p, tokens, weights = random.random((3, 30)), lengths(3, 30), random.integers(0, 3, (11, 30)).astype(float)
    whole = length_controlled(p, tokens, weights)
    monkeypatch.setattr("nashtune.comparison.length_control.CHUNK", 4 * p.size)
    pieces = length_controlled(p, tokens, weights)
    assert pieces[0] == pytest.approx(whole[0], abs=1e-12)
    assert pieces[1] == pytest.approx(whole[1], abs=1e-12)


JUDGES = {
    "hard": lambda first, second: (np.sign(first - second) + 1) / 2,
    "of the difference": lambda first, second: expit(0.2 * (first - second)),
    "of the difference, mildly": lambda first, second: expit(0.05 * (first - second)),
    "of the ratio": lambda first, second: expit(3 * np.log(first / second)),
}


@pytest.mark.parametrize("judge", JUDGES)
def test_judges_of_length_alone_leave_one_half_or_no_number(judge: str):
    random, numbers = np.random.default_rng(0), 0
    for shift in (0, 5, 10, 20, 30, 40, 60):
        tokens = np.maximum(random.normal([[80.0], [80.0 + shift]], 20.0, (2, 600)).round(), 2.0)
        p = JUDGES[judge](tokens[0], tokens[1])[None]
        rates, _, _ = length_controlled(p, tokens, np.ones((1, 600)))
        assert np.isnan(rates[0, 0]) == (overlaps(p, tokens)[0] < OVERLAP)
        if not np.isnan(rates[0, 0]):
            numbers += 1
            assert rates[0, 0] == pytest.approx(0.5, abs=0.03)
    assert numbers == 5


@pytest.mark.parametrize(("judge", "most"), [("hard", 0.2), ("of the difference", 0.08), ("of the ratio", 0.08)])
def test_the_error_for_other_lengths_is_what_the_page_admits(judge: str, most: float):
    """Skewed lengths, other than those that the limit was chosen on."""
    for seed in range(5):
        random = np.random.default_rng(200 + seed)
        for shift in (0.0, 0.3, 0.6, 1.0, 1.5):
            tokens = np.maximum(np.exp(random.normal([[4.0], [4.0 + 0.5 * shift]], 0.5, (2, 400))).round(), 2.0)
            rates, _, _ = length_controlled(JUDGES[judge](tokens[0], tokens[1])[None], tokens, np.ones((1, 400)))
            assert np.isnan(rates[0, 0]) or abs(rates[0, 0] - 0.5) < most


def test_no_lengths_overlap():
    tokens = np.array([[9.0, 8.0, 7.0], [30.0, 31.0, 32.0]])
    rates, effect, _ = length_controlled(np.array([[0.2, 0.4, 0.1]]), tokens, np.ones((2, 3)))
    assert np.isnan(rates).all() and np.isnan(effect).all()
