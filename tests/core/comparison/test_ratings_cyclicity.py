from __future__ import annotations

import numpy as np
import pytest

from nashtune.comparison.cyclicity import cycles, cyclic_part, cyclic_shares, log_odds
from nashtune.games.matrices import bradley_terry, cycle, from_upper

ORDER = from_upper(np.ones((3, 3)))
NAMES = ("rock", "paper", "scissors", "well")


def odds(P: np.ndarray, games: float = 100.0) -> np.ndarray:
    """Log-odds of one game or many, (R, M, M)."""
    P = P.reshape(-1, *P.shape[-2:])
    rates = P[:, *np.triu_indices(P.shape[-1], 1)]
    return log_odds(rates, np.full(rates.shape, games), P.shape[-1])


def share(P: np.ndarray) -> float:
    return float(cyclic_shares(odds(P))[0])


@pytest.mark.parametrize("scores", [[0, 1.5, 3, 4.5], [2, 1, 0], [-8, 0, 0.1, 7, 3]])
def test_one_score_a_policy_has_no_cyclic_part(scores: list[float]):
    assert share(bradley_terry(scores)) == 0.0


def test_certain_wins_count_with_one_imagined_tie():
    A = odds(np.array([[0.5, 1.0], [0.0, 0.5]]), 64.0)[0]
    assert A == pytest.approx(np.log(64.5 / 0.5) * np.array([[0, 1], [-1, 0]]), abs=1e-12)


def test_rock_paper_scissors_is_all_cyclic():
    assert share(cycle(1, 1, 1)) == pytest.approx(1.0, abs=1e-14)
    assert share(cycle(0.7, 0.7, 0.7)) == pytest.approx(1.0, abs=1e-14)


def test_an_order_without_circles_can_still_be_no_scores():
    assert share(ORDER) == pytest.approx(1 / 9, abs=1e-15)
    assert share(from_upper(np.array([[0.5, 0.9], [0, 0.5]]))) == 0.0  # two policies have no circle


def test_the_parts_are_orthogonal_and_add_up():
    random = np.random.default_rng(0)
    P = from_upper(random.random((6, 6)))
    A = odds(P)[0]
    cyclic = cyclic_part(A[None])[0]
    gradient = A - cyclic
    assert (gradient * cyclic).sum() == pytest.approx(0.0, abs=1e-12)
    assert cyclic.sum(axis=1) == pytest.approx(np.zeros(6), abs=1e-12)
    # a gradient has no circulation around any triangle
    assert gradient[0, 1] + gradient[1, 2] + gradient[2, 0] == pytest.approx(0.0, abs=1e-13)
    assert share(P) == pytest.approx((cyclic**2).sum() / (A**2).sum(), abs=1e-15)


def test_nothing_but_ties_has_no_share():
    assert np.isnan(share(np.full((3, 3), 0.5)))


def test_circles_are_listed_in_their_direction_with_their_confidence():
    P = np.full((4, 4), 0.5)
    P[:3, :3] = cycle(0.4, 0.3, 0.2)  # paper beats rock, scissors paper, rock scissors
    weak = P.copy()
    weak[0, 1], weak[1, 0] = 0.55, 0.45  # broken in one of the resamples
    resamples = np.array([P, P, P, P, weak])
    assert cycles(resamples, NAMES, 0.8) == ()
    (found,) = cycles(resamples, NAMES, 0.75)
    assert found.policies == ("rock", "scissors", "paper")
    assert found.rates == pytest.approx((0.8, 0.7, 0.6))
    assert found.confidence == 0.75
    assert cycles(resamples[:1], NAMES, 0.75) == ()  # nothing was resampled
