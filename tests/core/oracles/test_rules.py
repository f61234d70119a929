"""Rules as rewards."""

from __future__ import annotations

import pytest
import torch

from nashtune.errors import InputError
from nashtune.oracles.rules import RulesOracle, brevity, distinct, length, parse_rule


def scores(rules: list[str], texts: list[str], weights: list[float] | None = None) -> list[float]:
    return RulesOracle(rules=rules, weights=weights).score([""] * len(texts), texts).mean.tolist()


def test_length_counts_words_and_brevity_is_its_negative():
    assert length("It isn't far, is it?") == 5
    assert brevity("It isn't far, is it?") == -5
    assert scores(["length", "brevity"], ["one two three"]) == [0.0]


def test_distinct_is_the_share_of_different_n_grams():
    assert distinct("the cat the cat the dog", 1) == 3 / 6
    assert distinct("The cat the cat the dog", 2) == 3 / 5  # the-cat, cat-the, the-dog; case does not count
    assert distinct("all words differ here", 2) == 1.0


@pytest.mark.parametrize("rule", ["sentiment", "length", "brevity", "distinct_1", "distinct_3", "regex:x"])
@pytest.mark.parametrize("text", ["", " \n ", "!?"])
def test_texts_without_words_score_zero(rule, text):
    assert parse_rule(rule, "rules")(text) == 0.0


def test_a_text_shorter_than_n_has_no_n_grams():
    assert scores(["distinct_2"], ["hello"]) == [0.0]


def test_regex_counts_matches_and_not_empty_ones():
    assert scores(["regex:(?i)thank you"], ["Thank you, thank you!", "no"]) == [2.0, 0.0]
    assert scores(["regex:a*"], ["aa b a"]) == [2.0]


def test_a_pattern_may_contain_colons():
    assert scores(["regex:https?://"], ["see http://a and https://b"]) == [2.0]


def test_sentiment_has_the_sign_of_the_text():
    good, flat, bad = scores(["sentiment"], ["A wonderful day!", "The table is in the kitchen.", "A horrible day!"])
    assert good > 0.5 and flat == 0.0 and bad < -0.5


def test_the_sum_is_weighted_and_not_standardised():
    texts = ["one two two", "one"]
    assert scores(["length", "distinct_1"], texts, [-0.5, 3.0]) == [-1.5 + 2.0, -0.5 + 3.0]
    assert scores(["length", "length"], texts) == [6.0, 2.0]


def test_scores_are_float64_and_nothing_gives_nothing():
    rewards = RulesOracle(rules=["length"]).score([], [])
    assert rewards.mean.shape == (0,) and rewards.mean.dtype == torch.float64


@pytest.mark.parametrize(
    ("rules", "weights", "words"),
    [
        (["sentimant"], None, "no rule 'sentimant'; did you mean 'sentiment'"),
        (["distinct_0"], None, "distinct_1"),
        (["regex:("], None, "is not a regular expression"),
        (["regex:"], None, "no pattern"),
        ([], None, "the list is empty"),
        (["length"], [1.0, 2.0], "2 weights for 1 rules"),
    ],
)
def test_wrong_rules_are_refused(rules, weights, words):
    with pytest.raises(InputError, match="oracle") as caught:
        RulesOracle(rules=rules, weights=weights)
    assert words in str(caught.value)


def test_prepare_names_a_missing_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    RulesOracle(rules=["length"]).prepare()
    with pytest.raises(InputError, match=r"nashtune\[demo\]"):
        RulesOracle(rules=["length", "sentiment"]).prepare()
