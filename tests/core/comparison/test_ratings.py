from __future__ import annotations

import io
import json
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from rich.console import Console
from scipy.special import expit

from nashtune.comparison.judged import START, Judged
from nashtune.comparison.rate import rate
from nashtune.comparison.ratings import Ratings
from nashtune.errors import InputError
from nashtune.interfaces import schedule

NAMES = ("start", "dpo", "ipo", "onpo")


def example(seeds: int = 3, prompts: int = 40, policies: int = 4, seed: int = 0) -> Judged:
    """Strengths 0, 1, 0.6, 1.4 with noise of seeds, prompts and answers; long answers are a little favoured."""
    random = np.random.default_rng(seed)
    shape = (policies, seeds, prompts)
    strength = np.array([0.0, 1.0, 0.6, 1.4])[:policies, None, None] + random.normal(scale=0.3, size=shape)
    strength += random.normal(scale=0.1, size=(policies, seeds, 1)) + random.normal(
        scale=0.3, size=(policies, 1, prompts)
    )
    tokens = random.integers(5, 40, shape) + 5.0 * np.arange(policies)[:, None, None]
    pairs = list(combinations(range(policies), 2))
    p = np.array([expit(strength[i] - strength[j] + 0.02 * (tokens[i] - tokens[j])) for i, j in pairs])
    kl = (1.0 + random.normal(size=shape)) * np.arange(policies)[:, None, None]
    return Judged(policies=NAMES[:policies], p=p, tokens=tokens, kl=kl, reward=strength)


def printed(found: Ratings, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for table in found.tables():
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_start_has_the_name_that_schedules_give_it():
    assert START == schedule.START


def test_everything_is_there_and_consistent():
    judged = example()
    found = rate(judged, resamples=300)
    assert (found.seeds, found.prompts, found.comparisons, found.unanswered) == (3, 40, 720, 0)
    assert found.resampled == ("seeds", "prompts") and found.resamples == 300
    assert found.win_rate.value[0, 1] == pytest.approx(judged.p[0].mean(), abs=1e-14)
    for matrix in (found.win_rate, found.length_controlled.win_rate):
        assert matrix.value + matrix.value.T == pytest.approx(np.ones((4, 4)), abs=1e-12)
        assert matrix.low + matrix.high.T == pytest.approx(np.ones((4, 4)), abs=1e-12)
        assert (matrix.low <= matrix.value).all() and (matrix.value <= matrix.high).all()
    others = (found.win_rate.value.sum(axis=1) - 0.5) / 3
    assert found.mean_win_rate.value == pytest.approx(others, abs=1e-12)
    assert found.anchor == "start" and found.elo.rating.value[0] == 1000.0
    assert found.elo.rating.low[0] == found.elo.rating.high[0] == 1000.0
    assert np.argsort(found.elo.rating.value).tolist() == [0, 2, 1, 3]
    assert found.nash.weight.value == pytest.approx([0, 0, 0, 1]) and found.nash.value.value.max() == 0.5
    assert found.nash.value.value == pytest.approx(found.win_rate.value[:, 3])
    assert found.length_controlled.effect.low > 0  # the judge likes length, and 0 is excluded
    assert found.length_controlled.mean.value[3] < found.mean_win_rate.value[3]  # the longest answers lose by it
    assert found.cyclicity.triples == 4 and found.cyclicity.cycles == ()
    assert 0 <= found.cyclicity.share.value < 0.05
    assert any("3 seeds" in note for note in found.notes)


def test_the_same_input_gives_the_same_numbers_and_the_order_of_policies_does_not_matter():
    judged = example()
    first, second = rate(judged, resamples=50), rate(judged, resamples=50)
    assert first.as_dict() == second.as_dict()
    pairs = [5, 4, 2, 3, 1, 0]  # (3, 2), (3, 1), (3, 0), (2, 1), (2, 0), (1, 0)
    turned = Judged(policies=judged.policies[::-1], p=1 - judged.p[pairs], tokens=judged.tokens[::-1])
    back = rate(turned, resamples=50)
    assert back.win_rate.low[::-1, ::-1] == pytest.approx(first.win_rate.low, abs=1e-12)
    assert back.elo.rating.high[::-1] == pytest.approx(first.elo.rating.high, abs=1e-6)
    assert back.length_controlled.mean.low[::-1] == pytest.approx(first.length_controlled.mean.low, abs=1e-9)


def test_ratings_come_back_from_json():
    judged = example()
    judged.p[0, 1] = np.nan
    found = rate(judged, resamples=20)
    text = json.dumps(found.as_dict(), allow_nan=False)
    assert Ratings.from_dict(json.loads(text)).as_dict() == found.as_dict()
    without = Judged(policies=judged.policies, p=judged.p[:, :1, :1], tokens=judged.tokens[:, :1, :1])
    bare = rate(without)
    assert bare.frontier is None and bare.resamples == 0
    assert Ratings.from_dict(json.loads(json.dumps(bare.as_dict(), allow_nan=False))).as_dict() == bare.as_dict()


def test_a_cyclic_comparison_is_seen_as_one():
    random = np.random.default_rng(0)
    p = np.clip(np.array([0.8, 0.2, 0.8])[:, None, None] + random.normal(scale=0.1, size=(3, 2, 50)), 0, 1)
    found = rate(Judged(policies=("rock", "scissors", "paper"), p=p, tokens=np.full((3, 2, 50), 9.0)), resamples=200)
    assert found.anchor == "rock"
    assert found.cyclicity.share.value > 0.99 and found.cyclicity.chance == 0.0
    (circle,) = found.cyclicity.cycles
    assert circle.policies == ("rock", "scissors", "paper") and circle.confidence == 1.0
    assert found.nash.weight.value == pytest.approx(np.full(3, 1 / 3), abs=0.03)
    assert found.nash.value.value == pytest.approx(np.full(3, 0.5), abs=1e-12)
    assert found.elo.rating.value == pytest.approx(np.full(3, 1000.0), abs=20)
    assert "rock > scissors" in printed(found)


def test_a_policy_without_an_answer_is_left_out_and_named():
    whole = example(policies=3)
    judged = example()
    for c, pair in enumerate(combinations(range(4), 2)):
        if 3 in pair:
            judged.p[c] = np.nan
    judged.tokens[3] = np.nan
    judged.kl[3] = np.nan
    judged.reward[3] = np.nan
    found = rate(judged, resamples=40)
    alone = rate(judged.only([0, 1, 2]), resamples=40)
    assert found.policies == NAMES and found.unanswered == 360 and whole.policies == NAMES[:3]
    assert "onpo: no usable answer" in found.notes[0]
    for mine, its in (
        (found.win_rate, alone.win_rate),
        (found.length_controlled.win_rate, alone.length_controlled.win_rate),
    ):
        assert mine.value[:3, :3].tolist() == its.value.tolist() and mine.low[:3, :3].tolist() == its.low.tolist()
        assert np.isnan(mine.value[3]).all() and np.isnan(mine.value[:, 3]).all()
    for mine, its in ((found.elo.rating, alone.elo.rating), (found.frontier.kl, alone.frontier.kl)):
        assert mine.value[:3].tolist() == its.value.tolist() and np.isnan(mine.value[3])
    assert "–" in printed(found)
    assert Ratings.from_dict(found.as_dict()).as_dict() == found.as_dict()


def test_a_seed_without_answers_is_left_out_of_intervals():
    judged = example(seeds=2)
    judged.p[:3, 1] = np.nan  # the start has answers for the first seed alone
    judged.tokens[0, 1] = np.nan
    found = rate(judged, resamples=60)
    assert found.win_rate.value[0, 1] == pytest.approx(judged.p[0, 0].mean())
    assert np.isfinite(found.elo.rating.low).all() and np.isfinite(found.nash.weight.high).all()
    assert any("120 of 480" in note for note in found.notes)


def test_two_policies_that_never_met_have_elo_but_no_nash_average():
    judged = example(policies=3)
    judged.p[2] = np.nan
    found = rate(judged, resamples=20)
    assert np.isfinite(found.elo.rating.value).all()
    assert np.isnan(found.nash.weight.value).all() and np.isnan(found.cyclicity.share.value)
    assert any("dpo and ipo were never compared" in note for note in found.notes)


def test_a_policy_that_always_wins_is_said():
    judged = example(seeds=1, policies=3)
    judged.p[0] = 0.0  # dpo beats start, and ipo, always
    judged.p[2] = 1.0
    found = rate(judged, resamples=30)
    assert found.elo.imagined and found.elo.imagined_share == 1.0
    assert np.isfinite(found.elo.rating.value).all()
    (elo,) = (note for note in found.notes if note.startswith("Elo"))
    assert "dpo won every comparison" in elo and "one imagined tie" in elo
    assert any(note.startswith("one seed") for note in found.notes)


def test_the_frontier_says_what_was_gained_for_how_much():
    judged = example()
    judged.kl[:] = np.array([0.0, 2.0, 3.0, 4.0])[:, None, None]
    judged.kl[1, 0, :20] += 0.6
    found = rate(judged, resamples=30).frontier
    assert found is not None and found.axis == "reward"
    assert found.gain.value == pytest.approx(judged.reward.mean(axis=(1, 2)))
    assert found.gain_by_seed == pytest.approx(judged.reward.mean(axis=2))
    assert found.kl.value == pytest.approx([0, 2.1, 3, 4]) and found.kl_by_seed[1] == pytest.approx([2.3, 2, 2])
    assert found.kl.low[1] < 2.1 < found.kl.high[1] and found.kl.low[2] == found.kl.high[2] == 3.0
    assert found.best == ("start", "dpo", "onpo")  # ipo moved further than dpo for less
    assert found.share[[0, 3]].tolist() == [1.0, 1.0] and found.share[2] < 0.1
    without = Judged(policies=judged.policies, p=judged.p, tokens=judged.tokens, kl=judged.kl)
    rates = rate(without, resamples=30)
    assert rates.frontier is not None and rates.frontier.axis == "win rate over start"
    assert rates.frontier.gain.value == pytest.approx(rates.win_rate.value[:, 0])
    assert rates.frontier.gain_by_seed[1] == pytest.approx(1 - judged.p[0].mean(axis=1))
    single = rate(example(seeds=1), resamples=30).frontier
    assert (single.kl.low <= single.kl.value).all() and (single.kl.low < single.kl.high)[1:].all()


def test_a_policy_as_far_and_as_good_by_chance_is_on_the_frontier_in_half_of_the_resamples():
    random = np.random.default_rng(0)
    judged = example(policies=3)
    judged.kl[:] = np.array([0.0, 2.0, 2.0])[:, None, None]
    noise = random.normal(size=(2, 3, 40))
    judged.reward[1:] = noise - noise.mean(axis=(1, 2), keepdims=True) + np.array([1.0, 1.001])[:, None, None]
    found = rate(judged, resamples=400)
    assert found.frontier.best == ("start", "ipo")
    assert 0.3 < found.frontier.share[1] < 0.7 and 0.3 < found.frontier.share[2] < 0.7
    assert "may be so of: dpo in " in " ".join(printed(found).split())


def test_the_ranking_has_a_confidence_that_is_paired():
    """Intervals of both policies are wide as prompts differ, and one is better on every one of them."""
    random = np.random.default_rng(1)
    hard, better = random.normal(scale=2.0, size=(1, 4, 60)), np.array([0.1, 0.2])[:, None, None]
    over_start = expit(hard - hard.mean() + better)
    p = np.concatenate([1 - over_start, np.full((1, 4, 60), expit(-0.1))])
    found = rate(Judged(policies=("start", "a", "b"), p=p, tokens=np.full((3, 4, 60), 9.0)), resamples=300)
    rating = found.elo.rating
    assert rating.low[2] < rating.value[1] < rating.value[2] < rating.high[1]  # overlap widely
    assert found.above[2, 1] > 0.99 and found.above[1, 2] == pytest.approx(1 - found.above[2, 1])
    assert np.diag(found.above).tolist() == [0.5] * 3
    assert "b above a " in " ".join(printed(found, width=300).split())


def test_a_nash_average_of_equal_policies_is_not_determined():
    random = np.random.default_rng(0)
    p = random.binomial(1, 0.5, size=(6, 4, 80)).astype(float)
    equal = rate(Judged(policies=NAMES, p=p, tokens=np.full((4, 4, 80), 9.0)), resamples=200)
    assert not equal.nash.determined and equal.nash.share.max() < 0.95
    assert any("Nash average: not determined" in note for note in equal.notes)
    sure = rate(example(seeds=5), resamples=200)
    assert sure.nash.determined and sure.nash.share.tolist() == [0, 0, 0, 1]
    assert not any("Nash average" in note for note in sure.notes)


def test_a_judge_for_whom_the_longer_answer_always_wins_is_said():
    judged = example()
    pairs = combinations(judged.tokens, 2)
    hard = Judged(policies=NAMES, p=np.array([(np.sign(a - b) + 1) / 2 for a, b in pairs]), tokens=judged.tokens)
    assert any("length decides nearly everything" in note for note in rate(hard, resamples=20).notes)
    assert not any("length decides" in note for note in rate(judged, resamples=20).notes)


def test_no_two_policies_write_answers_of_like_lengths():
    judged = example(policies=2)
    judged.tokens[1] += 100.0
    found = rate(judged, resamples=20)
    controlled = found.length_controlled
    assert np.isnan(controlled.mean.value).all() and np.isnan(controlled.effect.value) and np.isnan(controlled.scale)
    assert "length effect" not in printed(found) and "–" in printed(found)
    assert Ratings.from_dict(json.loads(json.dumps(found.as_dict(), allow_nan=False))).as_dict() == found.as_dict()


def test_scores_that_explain_every_rate_leave_no_cyclic_share():
    """P - 1/2 of these rates has a share of 0.057."""
    scores = np.array([0, 1.5, 3, 4.5])
    exact = expit([scores[i] - scores[j] for i, j in combinations(range(4), 2)])[:, None, None]
    tokens = np.full((4, 5, 100), 9.0)
    found = rate(Judged(policies=NAMES, p=np.broadcast_to(exact, (6, 5, 100)).copy(), tokens=tokens), resamples=50)
    assert found.cyclicity.share.value == 0.0
    drawn = np.random.default_rng(0).binomial(1, exact, size=(6, 5, 100)).astype(float)
    seen = rate(Judged(policies=NAMES, p=drawn, tokens=tokens), resamples=200).cyclicity
    assert 0 < seen.share.value < 0.05 < seen.chance


def test_hard_win_rates_do_not_depend_on_the_unit_of_rewards():
    judged = example(policies=3)
    gaps = np.array([judged.reward[i] - judged.reward[j] for i, j in combinations(range(3), 2)])
    gaps[:, 0, 0] = 0.0
    soft, hard = (
        [
            rate(Judged(policies=NAMES[:3], p=expit(unit * gaps), tokens=judged.tokens), resamples=20)
            for unit in (0.05, 20.0)
        ][k]
        for k in (0, 1)
    )
    assert soft.hard_win_rate.value.tolist() == hard.hard_win_rate.value.tolist()
    assert np.abs(soft.mean_win_rate.value - 0.5).max() < 0.02 < 0.2 < np.abs(hard.mean_win_rate.value - 0.5).max()
    verdicts = Judged(policies=NAMES[:3], p=expit(gaps), tokens=judged.tokens).hard.p
    assert (verdicts[:, 0, 0] == 0.5).all() and set(np.unique(verdicts)) == {0.0, 0.5, 1.0}
    assert "win rates with every verdict certain" in " ".join(printed(soft).split())


def test_policies_of_different_lengths_have_no_length_controlled_rate():
    judged = example()
    judged.tokens[3] += 100.0
    found = rate(judged, resamples=50)
    rates = found.length_controlled.win_rate
    assert np.isnan(rates.value[3, :3]).all() and np.isnan(rates.value[:3, 3]).all() and rates.value[3, 3] == 0.5
    assert np.isnan(found.length_controlled.mean.value[3])
    assert found.length_controlled.mean.value[0] == pytest.approx(rates.value[0, 1:3].mean())
    assert found.length_controlled.overlap[0].tolist()[3] == 0.0 and found.length_controlled.overlap[3, 3] == 1.0
    (note,) = (note for note in found.notes if note.startswith("length-controlled"))
    assert "start and onpo, dpo and onpo, ipo and onpo differ too much" in note
    assert Ratings.from_dict(json.loads(json.dumps(found.as_dict(), allow_nan=False))).as_dict() == found.as_dict()


def test_what_is_printed():
    text = printed(rate(example(), resamples=50))
    for words in ("length-controlled", "Nash average", "95 % bootstrap intervals over seeds and prompts", "win rates"):
        assert words in text
    assert "no other policy has as much for less" in text and "circles of three" not in text
    first = text.splitlines()
    assert next(line for line in first if "onpo" in line or "start" in line).find("onpo") > 0  # best first
    assert max(map(len, printed(rate(example(), resamples=50), width=90).splitlines())) <= 90


def test_nothing_to_rate_is_refused():
    judged = example()
    judged.p[:] = np.nan
    with pytest.raises(InputError, match="none of the 720 pairs of answers has a verdict"):
        rate(judged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policies": ("a", "a", "b", "c")}, "different names"),
        ({"p": np.full((5, 3, 40), 0.5)}, "p has shape"),
        ({"p": np.full((6, 3, 40), 1.5)}, "outside 0 to 1"),
        ({"tokens": np.ones((4, 3, 39))}, "tokens has shape"),
        ({"kl": np.ones((4, 3))}, "kl has shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object], message: str):
    judged = example()
    given = {name: getattr(judged, name) for name in ("policies", "p", "tokens", "kl", "reward")}
    with pytest.raises(ValueError, match=message):
        Judged(**{**given, **change})


def test_ratings_load_without_torch():
    code = "import sys, nashtune.comparison.rate, nashtune.comparison.tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
