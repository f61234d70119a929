"""VADER: a rule-based sentiment score, as a reward that needs no model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch

from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt, RewardOracle, Rewards


class VaderOracle(RewardOracle):
    """Compound sentiment of the completion's text, in [-1, 1]; the prompt is not read.

    Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014.
    The score is a fixed function of the text, rounded to four decimals.
    """

    def __init__(self) -> None:
        self._compound: Callable[[str], float] | None = None

    def prepare(self) -> None:
        """Reads the lexicon.

        Raises:
            InputError: the package vaderSentiment is not installed.
        """
        self._compound = self._compound or sentiment_analyzer()

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
        """Compound scores (N,), float64.

        Raises:
            InputError: the package vaderSentiment is not installed.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions")
        compound = self._compound = self._compound or sentiment_analyzer()
        return Rewards(mean=torch.tensor([compound(text) for text in completions], dtype=torch.float64))


def sentiment_analyzer() -> Callable[[str], float]:
    """Text -> VADER's compound score in [-1, 1]; reads the lexicon.

    Raises:
        InputError: the package vaderSentiment is not installed.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ModuleNotFoundError as error:
        raise InputError(
            f"oracle: sentiment needs the package {error.name}, which is not installed; "
            "run `pip install 'nashtune[demo]'`"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it opens its lexicon with codecs.open, deprecated in 3.14
        analyzer = SentimentIntensityAnalyzer()
    return lambda text: float(analyzer.polarity_scores(text)["compound"])
