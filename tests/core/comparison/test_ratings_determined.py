"""What ratings say of what the judgements do not determine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit

from nashtune.comparison.judged import Judged
from nashtune.comparison.rate import rate
from nashtune.comparison.ratings import Ratings

NAMES = ("a", "b", "c", "d")


def of(p: np.ndarray, tokens: np.ndarray | None = None, resamples: int = 200) -> Ratings:
    """Ratings of the first policies, whose answers have lengths of 5 to 39 tokens."""
    pairs, seeds, prompts = p.shape
    m = round((1 + np.sqrt(1 + 8 * pairs)) / 2)
    lengths = np.random.default_rng(0).integers(5, 40, size=(m, seeds, prompts)).astype(float)
    judged = Judged(policies=NAMES[:m], p=p, tokens=lengths if tokens is None else tokens)
    return rate(judged, resamples=resamples)


def verdicts(rates: list[float], seeds: int, prompts: int, seed: int = 0) -> np.ndarray:
    each = np.reshape(rates, (-1, 1, 1))
    return np.random.default_rng(seed).binomial(1, each, size=(len(rates), seeds, prompts)).astype(float)


def about(found: Ratings, beginning: str) -> list[str]:
    return [note for note in found.notes if note.startswith(beginning)]


def test_policies_that_are_not_told_apart_and_those_that_win_are_named():
    """a has the highest Elo, for its wins over c and d, and loses to b."""
    found = of(verdicts([0.35, 0.98, 0.98, 0.7, 0.7, 0.5], 3, 200))
    assert found.policies[int(np.argmax(found.elo.rating.value))] == "a"
    assert found.beaten_by == {"a": ("b",), "b": (), "c": ("a", "b"), "d": ("a", "b")}
    assert found.near == {"a": (), "b": (), "c": ("d",), "d": ("c",)}
    assert "a has the highest Elo, but b beats it" in found.notes
    assert found.nash.determined and found.nash.sure == ("b",)


def test_one_prompt_determines_nothing():
    found = of(np.array([[[0.9]], [[0.8]], [[0.7]]]))
    assert not found.nash.determined and found.nash.sure == ()
    assert found.near == {"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}
    assert found.beaten_by == {"a": (), "b": (), "c": ()}
    assert about(found, "one seed and one prompt")[0].endswith("nothing is determined")


@pytest.mark.parametrize(("prompts", "sure"), [(2, False), (5, False), (6, True), (12, True)])
def test_wins_on_few_prompts_are_no_win(prompts: int, sure: bool):
    """Five heads in a row are not rare enough: 1 of 16 coins falls alike five times."""
    found = of(np.ones((3, 1, prompts)))
    assert found.nash.weight.value.tolist() == [1, 0, 0]
    assert found.nash.determined == sure and found.nash.sure == (("a",) if sure else ())
    assert found.near["a"] == (() if sure else ("b", "c"))
    said = about(found, "Nash average")
    assert said == [] if sure else "its win rates over b, c may as well be 1/2" in said[0]


def test_equal_policies_are_seldom_called_different_by_few_prompts():
    random = np.random.default_rng(0)
    called = [
        of(random.binomial(1, 0.5, size=(1, 1, 3)).astype(float), resamples=60).beaten_by != {"a": (), "b": ()}
        for _ in range(40)
    ]
    assert not any(called)


def test_a_saturated_judge_is_rated():
    """Probabilities of about 1 - 1e-9: the search for a mixture failed on 6 of 8 such tables."""
    random = np.random.default_rng(0)
    for _ in range(3):
        sure = random.choice([-1, 1], size=(3, 1, 32)) * np.abs(random.normal(20, 3, size=(3, 1, 32)))
        found = of(expit(sure), resamples=500)
        assert not np.isnan(found.nash.weight.value).any() and found.nash.failed == 0
        assert about(found, "Nash average: the search") == []


@pytest.mark.parametrize("confidence", [11.0, 14.0, 18.0, 24.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_policy_that_always_wins_by_a_saturated_judge_is_rated(confidence: float, seeds: int):
    """Newton's method did not settle for 1 in 10 such tables, of Elo or of length control."""
    random = np.random.default_rng(0)
    for prompts in (3, 8, 32):
        side = np.where(random.random((3, seeds, prompts)) < 0.95, 1, -1)
        found = of(expit(side * random.normal(confidence, confidence / 8, size=side.shape)), resamples=60)
        assert np.isfinite(found.elo.rating.value).all() and np.isfinite(found.length_controlled.effect.value)


def test_a_search_that_failed_is_said(monkeypatch: pytest.MonkeyPatch):
    import nashtune.comparison.rate as module

    def without(number: int):
        def some(P: np.ndarray) -> np.ndarray:
            made = np.tile([1.0, 0.0, 0.0], (len(P), 1))
            made[:number] = np.nan
            return made[::-1] if number < len(P) else made

        return some

    p = verdicts([0.9, 0.9, 0.9], 1, 40)
    monkeypatch.setattr(module, "nash_averages", without(7))
    found = of(p)
    assert found.nash.failed == 7 and about(found, "Nash average: the search for it failed in 7 of 200 resamples")
    monkeypatch.setattr(module, "nash_averages", without(201))
    assert "Nash average: the search for it failed on these win rates" in of(p).notes


def test_answers_of_equal_length_have_no_effect_of_length():
    p = verdicts([0.7, 0.6, 0.5], 2, 30)
    found = of(p, np.full((3, 2, 30), 12.0))
    controlled = found.length_controlled
    assert controlled.scale == 0.0 and controlled.win_rate.value == pytest.approx(found.win_rate.value)
    assert about(found, "length-controlled: all answers had equal length")
    captions = [str(table.caption) for table in found.tables()]
    assert "length effect: none to be seen, all answers had equal length" in captions[0]
    assert "+0.00" not in captions[0]


def test_files_of_earlier_versions_are_read():
    found = of(verdicts([0.9, 0.9, 0.9], 2, 40))
    told = json.loads(json.dumps(found.as_dict()))
    for name in ("sure", "failed"):
        del told["nash"][name]
    read = Ratings.from_dict(told)
    assert read.nash.sure == ("a",) and read.nash.failed == 0
    assert read.near == found.near and read.beaten_by == found.beaten_by
    assert read.as_dict() == found.as_dict()
