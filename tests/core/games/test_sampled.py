from __future__ import annotations

import numpy as np
import pytest

from nashtune.errors import InputError
from nashtune.games import find_game
from nashtune.games.matrices import make_game
from nashtune.games.sampled import SampledPairs
from nashtune.games.verify import Sampling
from nashtune.pairing.iid import IID
from nashtune.pairing.ranked import BestWorst

GAME = find_game("weighted_rps")
MU = np.log(GAME.start)


def iid(pairs: int, seed: int = 0, completions: int = 2) -> SampledPairs:
    return SampledPairs([GAME], IID(), pairs=pairs, completions=completions, seed=seed)


def test_the_same_seed_and_round_draw_the_same_pairs():
    rows, again, other = iid(50)(MU, 1), iid(50)(MU, 1), iid(50)(MU, 2)
    assert rows.weight_B.tolist() == again.weight_B.tolist()
    assert rows.weight_B.tolist() != other.weight_B.tolist()
    assert float(rows.weight_B.sum()) == pytest.approx(1.0)


def test_pairs_of_one_action_with_itself_are_dropped_and_counted():
    source = iid(3000)
    rows = source(MU, 1)
    assert not (rows.chosen_B == rows.rejected_B).any()
    assert source.made + source.dropped["identical"] == 3000
    assert source.dropped["identical"] == pytest.approx(1000, abs=100)


def test_many_pairs_have_the_shares_of_the_population():
    rows = iid(20_000, completions=8)(MU, 1)
    for i, j, weight in zip(rows.chosen_B, rows.rejected_B, rows.weight_B, strict=True):
        assert float(weight) == pytest.approx(2 * GAME.matrix[i, j] / 6, abs=0.02)
    assert len(rows.weight_B) == 6  # counted, not repeated


def test_the_fitted_step_is_unbiased_with_an_error_like_1_over_sqrt_N(play):
    """Log-ratios against action 0 after one ONPO round, minus the exact ones."""
    game, loss = find_game("random10"), {"eta": 0.5}
    exact = np.log(play("onpo", [game], rounds=1, loss=loss).last[0][1])
    spread = {}
    for pairs, seeds in ((400, 30), (1600, 30)):
        found = []
        for seed in range(seeds):
            policy = play("onpo", [game], 1, Sampling(pairs=pairs, seed=seed), loss=loss).last[0][1]
            found.append(np.log(policy) - exact)
        errors = np.array(found) - np.mean(found, axis=1, keepdims=True)
        spread[pairs] = errors.std()
        assert np.abs(errors.mean(axis=0)).max() < 5 * spread[pairs] / np.sqrt(seeds)
    assert spread[400] / spread[1600] == pytest.approx(2.0, rel=0.2)


def test_best_against_worst_takes_a_larger_step_than_independent_pairs(play):
    """Selection breaks the equality with the mirror step: about twice as far on the random game."""
    game, loss = find_game("random10"), {"eta": 0.5}
    win = game.matrix @ game.start
    steps = {}
    for pairing in ("iid", "tournament"):
        report = play("inpo", [game], 1, Sampling(pairs=4000, pairing=pairing), loss={"tau": 0, "eta": 2.0})
        moved = np.log(report.last[0][1]) - np.log(game.start)
        steps[pairing] = np.polyfit(win - win.mean(), moved - moved.mean(), 1)[0] / loss["eta"]
    assert steps["iid"] == pytest.approx(1.0, abs=0.25)
    assert steps["tournament"] > 1.5


def test_win_rates_reach_the_loss_that_reads_them(play):
    rows = SampledPairs([GAME], BestWorst(), pairs=20, completions=8, seed=0)(MU, 1)
    assert (rows.win_rate_chosen_B > rows.win_rate_rejected_B).all()
    report = play("sppo_exact", [GAME], 2, Sampling(pairs=200, pairing="best_worst"), loss={"eta": 0.5})
    assert report.last[0][2][0] > report.last[0][0][0]
    with pytest.raises(InputError, match=r"--pairing iid: the loss 'sppo' reads win rates"):
        play("sppo_exact", [GAME], 2, Sampling(pairs=200), loss={"eta": 0.5})


def test_an_action_that_was_not_drawn_keeps_its_probability_and_that_is_said(play):
    game = find_game("condorcet:50")
    report = play("onpo", [game], 1, Sampling(pairs=5), loss={"eta": 0.5})
    kept = np.isclose(report.last[0][1], 0.02, atol=1e-14)
    assert 0 < kept.sum() < 50 and report.last[0][1].sum() == pytest.approx(1.0)
    assert any("keeps its log-prob" in note for note in report.notes)
    assert any(note.startswith("sampled: 5 pairs") for note in report.notes)


def test_a_sample_without_pairs_moves_nothing(play):
    game = make_game("sure", find_game("rps").matrix, [1 - 2e-9, 1e-9, 1e-9])
    sampling = Sampling(pairs=3, pairing="best_worst", completions=2)
    report = play("sppo", [game], 2, sampling, loss={"eta": 0.5})
    assert np.abs(report.last[0] - game.start).max() < 1e-15
    assert any("sampled: 0 pairs in all rounds and games; dropped: 6 tie" in note for note in report.notes)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(pairs=10, completions=3), "--completions 3: .*even number"),
        (Sampling(pairs=10, pairing="idd"), "--pairing: .*did you mean 'iid'"),
    ],
)
def test_samplings_that_cannot_be_are_refused(sampling: Sampling, message: str, play):
    with pytest.raises(InputError, match=message):
        play("onpo", [GAME], 1, sampling)
