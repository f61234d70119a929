"""Rules: scores of a completion's text that need no model. The prompt is not read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch

from nashtune.data.texts import check_lengths
from nashtune.errors import InputError, nearest
from nashtune.interfaces.oracle import Prompt, RewardOracle, Rewards
from nashtune.oracles.vader import sentiment_analyzer

Rule = Callable[[str], float]
WORD = re.compile(r"\w+(?:['’]\w+)*")
DISTINCT = re.compile(r"distinct_([1-9])")
NAMES = ("sentiment", "length", "brevity", "distinct_1", "distinct_2", "distinct_3", "regex:PATTERN")


def words(text: str) -> list[str]:
    """Lower-cased words: letters, digits and apostrophes within; punctuation does not count."""
    return [word.lower() for word in WORD.findall(text)]


def length(text: str) -> float:
    """Number of words."""
    return float(len(words(text)))


def brevity(text: str) -> float:
    """Minus the number of words: the shorter the better. An empty text is the shortest and gets 0."""
    return 0.0 - length(text)


def distinct(text: str, n: int) -> float:
    """Share of distinct n-grams among the text's n-grams of words, in [0, 1]; 0 where it has none.

    Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", NAACL 2016 (distinct-n), here
    within one text.
    """
    given = words(text)
    grams = [tuple(given[i : i + n]) for i in range(len(given) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def matches(text: str, pattern: re.Pattern[str]) -> float:
    """Number of matches of the pattern that do not overlap; empty matches do not count."""
    return float(sum(1 for match in pattern.finditer(text) if match.group()))


def sentiment() -> Rule:
    """VADER's compound sentiment in [-1, 1]; an empty text gets 0. The lexicon is read when it is first asked."""
    analyzers: list[Callable[[str], float]] = []

    def compound(text: str) -> float:
        if not analyzers:
            analyzers.append(sentiment_analyzer())
        return analyzers[0](text)

    return compound


def parse_rule(rule: str, option: str, known: Sequence[str] = NAMES) -> Rule:
    """The scorer behind a rule's name.

    Args:
        rule: "sentiment", "length", "brevity", "distinct_N" with N from 1 to 9, or "regex:PATTERN" in Python's syntax.
        option: Where the user wrote it, for messages.
        known: What may stand there, for messages.

    Raises:
        InputError: no such rule, or the pattern is no regular expression.
    """
    if rule.startswith("regex:"):
        text = rule.removeprefix("regex:")
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise InputError(f"{option}: {text!r} is not a regular expression: {error}") from error
        if not text:
            raise InputError(f"{option}: 'regex:' has no pattern; write one behind it, such as regex:(?i)thank you")
        return lambda completion: matches(completion, pattern)
    if found := DISTINCT.fullmatch(rule):
        n = int(found[1])
        return lambda completion: distinct(completion, n)
    named: dict[str, Callable[[], Rule]] = {
        "sentiment": sentiment,
        "length": lambda: length,
        "brevity": lambda: brevity,
    }
    if rule not in named:
        raise InputError(f"{option}: no rule {rule!r}{nearest(rule, known)}")
    return named[rule]()


class RulesOracle(RewardOracle):
    """Weighted sum of rules on the completion's text.

    Nothing is standardised: one word of `brevity` weighs as much as 1.0 of `sentiment`. Choose the weights accordingly.

    Args:
        rules: One or more of: `sentiment` (VADER compound score in [-1, 1], needs the `demo` extra), `length` (number
            of words), `brevity` (minus the number of words), `distinct_N` (share of distinct N-grams of words, in
            [0, 1]), `regex:PATTERN` (number of matches).
        weights: One factor per rule, negative ones too; all 1 by default.
    """

    def __init__(self, *, rules: list[str], weights: list[float] | None = None) -> None:
        if not rules:
            raise InputError(f"oracle.rules: the list is empty{nearest('', NAMES)}")
        self.rules = [parse_rule(rule, "oracle.rules") for rule in rules]
        self.weights = [1.0] * len(rules) if weights is None else [float(weight) for weight in weights]
        if len(self.weights) != len(rules):
            raise InputError(f"oracle.weights: {len(self.weights)} weights for {len(rules)} rules; give one for each")

    def prepare(self) -> None:
        """Sees that what the rules need is installed.

        Raises:
            InputError: the package vaderSentiment is missing and a rule needs it.
        """
        self.score([""], [""])

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
        """Weighted sums (N,), float64."""
        check_lengths(prompts, completions)
        weighted = list(zip(self.rules, self.weights, strict=True))
        totals = [sum(weight * rule(text) for rule, weight in weighted) for text in completions]
        return Rewards(mean=torch.tensor(totals, dtype=torch.float64))
