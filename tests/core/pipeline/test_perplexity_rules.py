from __future__ import annotations

import math
import random
import statistics

import pytest

from nashtune.errors import InputError
from nashtune.pipeline.perplexity_report import lower_is_chosen
from nashtune.pipeline.perplexity_rules import (
    Rule,
    bucket_name,
    bucket_of,
    kept,
    limits,
    moments,
    perplexity,
    quantile,
)

TOKENS = [
    [-0.5, -1.2, -0.1, -2.0],
    [-3.0, -2.5, -4.1, -1.9, -2.2],
    [-0.2, -0.4, -0.3],
    [-1.1, -0.9, -6.0, -0.8, -0.7, -1.5],
]
OWN = [0.35, 0.6, 0.8, 1.0, 1.1, 1.3, 1.6, 2.0]
NLL = [-math.fsum(tokens) / len(tokens) for tokens in TOKENS]
ANSWERS = [(nll, len(tokens)) for nll, tokens in zip(NLL, TOKENS, strict=True)]


def which(rule: Rule, own: list[float] = OWN) -> list[int]:
    found = limits(rule, [(nll, 5) for nll in own], [])
    return [i for i, keeps in enumerate(kept(rule, ANSWERS, list("abcd"), found, [])) if keeps]


def test_nll_and_perplexity_of_the_vectors():
    assert NLL == pytest.approx([0.95, 2.74, 0.3, 1.833333333333], abs=1e-12)
    expected = [2.585709659316, 15.486985096340, 1.349858807576, 6.254700951936]
    assert [perplexity(nll) for nll in NLL] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("q", "limit", "indices"),
    [(0.5, 2.861223926203, [0, 2]), (0.9, 5.683839526756, [0, 2]), (0.95, 6.536447812843, [0, 2, 3])],
)
def test_own_quantiles_are_linear_in_perplexity(q: float, limit: float, indices: list[int]):
    rule = Rule(name="own_quantile", q=q)
    assert quantile([perplexity(nll) for nll in OWN], q) == pytest.approx(limit, abs=1e-12)
    assert limits(rule, [(nll, 5) for nll in OWN], [])[0].high == pytest.approx(limit, abs=1e-12)
    assert which(rule) == indices


def test_z_scores_divide_by_the_sample_standard_deviation():
    mean, std = moments(OWN)
    expected = [-0.268115949633, 3.070510484057, -1.480466330582, 1.379437132170]
    assert [(nll - mean) / std for nll in NLL] == pytest.approx(expected, abs=1e-12)
    assert which(Rule(name="zscore", z=1.0)) == [0, 2]
    assert which(Rule(name="zscore", z=1.4)) == [0, 2, 3]
    assert which(Rule(name="zscore", z=-1.0)) == [2]
    assert which(Rule(name="zscore", z=1.0), [1.0, 1.0]) == [0, 2]  # equal own samples: none above them


def test_pair_gaps_of_the_vectors():
    gaps = [NLL[a] - NLL[b] for a, b in ((0, 1), (2, 3), (0, 3))]
    assert gaps == pytest.approx([-1.79, -1.533333333333, -0.883333333333], abs=1e-12)


def test_absolute_band_and_topk():
    assert which(Rule(name="absolute", tau=2.6)) == [0, 2]
    assert which(Rule(name="absolute", tau=1.0)) == []
    assert which(Rule(name="band", lo=2.0, hi=7.0)) == [0, 3]
    rule = Rule(name="topk", n=2)
    found = limits(rule, [], [])
    assert kept(rule, ANSWERS, ["x"] * 4, found, []) == [True, False, True, False]
    assert kept(rule, ANSWERS, ["x", "y", "x", "y"], found, []) == [True] * 4
    one = Rule(name="topk", n=1)
    assert kept(one, ANSWERS, ["x", "y", "x", "y"], found, []) == [False, False, True, True]
    assert kept(one, [(1.0, 2)] * 3, ["x"] * 3, found, []) == [True, False, False]  # of equal ones the first


def test_topk_counts_within_a_bucket_of_lengths():
    rule, borders = Rule(name="topk", n=1), [4]
    assert kept(rule, ANSWERS, ["x"] * 4, limits(rule, [], borders), borders) == [False, False, True, True]


@pytest.mark.parametrize("name", ["own_quantile", "zscore"])
def test_buckets_have_limits_of_their_own(name: str):
    rule = Rule(name="own_quantile", q=1.0) if name == "own_quantile" else Rule(name="zscore", z=10.0)
    own = [(0.5, 3), (0.7, 2), (2.5, 9), (2.9, 7)]
    short, long, longest = limits(rule, own, [4, 100])
    assert (short.own, long.own, longest.own) == (2, 2, 0)
    assert (short.pooled, long.pooled, longest.pooled) == (False, False, True)
    assert longest.high == limits(rule, own, [])[0].high
    assert short.high is not None and long.high is not None and short.high < long.high
    answers = [(1.9, 4), (1.9, 5)]
    if name == "own_quantile":
        assert kept(rule, answers, ["x", "x"], [short, long, longest], [4, 100]) == [False, True]


def test_too_few_own_samples_in_all_are_refused():
    with pytest.raises(InputError, match=r"rule: zscore takes at least 2 own samples, and there are 1 in all; use a"):
        limits(Rule(name="zscore", z=1.0), [(0.5, 3)], [])
    with pytest.raises(InputError, match="own_quantile takes at least 1 own samples, and there are 0"):
        limits(Rule(name="own_quantile", q=1.0), [], [])
    (one,) = limits(Rule(name="own_quantile", q=1.0), [(0.5, 3)], [])
    assert one.high == pytest.approx(math.exp(0.5), abs=1e-12)
    (two,) = limits(Rule(name="zscore", z=0.0), [(0.5, 3), (0.7, 3)], [])
    assert two.high == pytest.approx(math.exp(0.6), abs=1e-12)


def test_a_border_belongs_to_the_shorter_bucket():
    borders = [16, 64]
    assert [bucket_of(n, borders) for n in (1, 16, 17, 64, 65, 900)] == [0, 0, 1, 1, 2, 2]
    assert [bucket_name(i, borders) for i in range(3)] == ["1-16", "17-64", "65 and more"]
    assert bucket_name(0, []) == "all"


def test_quantile_one_keeps_every_own_sample_and_q_about_a_share_of_q():
    draw = random.Random(0)
    own = [(draw.gauss(1.5, 0.7), draw.randint(1, 90)) for _ in range(997)]
    for borders in ([], [10, 40]):
        for q in (1.0, 0.9, 0.5, 0.1):
            rule = Rule(name="own_quantile", q=q)
            share = statistics.mean(kept(rule, own, [0] * len(own), limits(rule, own, borders), borders))
            assert share == pytest.approx(q, abs=0.01)
            assert q < 1 or share == 1.0


def test_the_kept_set_is_nested_in_q():
    draw = random.Random(1)
    own = [(draw.gauss(1.5, 0.7), 5) for _ in range(37)]
    answers = [(draw.gauss(1.8, 1.0), 5) for _ in range(500)]
    before: set[int] = set()
    for step in range(201):
        rule = Rule(name="own_quantile", q=step / 200)
        now = {i for i, keeps in enumerate(kept(rule, answers, [0] * 500, limits(rule, own, []), [])) if keeps}
        assert before <= now
        before = now


def test_auc_counts_pairs_of_answers_and_half_of_ties():
    assert lower_is_chosen([1.0, 2.0], [3.0, 4.0]) == 1.0
    assert lower_is_chosen([3.0, 4.0], [1.0, 2.0]) == 0.0
    assert lower_is_chosen([1.0, 3.0], [3.0, 0.5]) == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert lower_is_chosen([], [1.0]) is None
    draw = random.Random(2)
    w, worse = [[draw.randint(0, 9) for _ in range(50)] for _ in range(2)]
    slow = statistics.mean(1.0 if a < b else 0.5 if a == b else 0.0 for a in w for b in worse)
    assert lower_is_chosen(w, worse) == pytest.approx(slow, abs=1e-12)


def test_a_hopeless_answer_has_infinite_perplexity():
    assert perplexity(800.0) == math.inf
    rule = Rule(name="absolute", tau=1e9)
    assert kept(rule, [(800.0, 3)], ["x"], limits(rule, [], []), []) == [False]
