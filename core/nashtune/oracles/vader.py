"""VADER: a rule-based sentiment score, as a reward that needs no model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from nashtune.errors import InputError
from nashtune.interfaces.oracle import RewardOracle, Rewards


class VaderOracle(RewardOracle):
    """Compound sentiment of the completion's text, in [-1, 1]; the prompt is not read.

    Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014.
    The score is a fixed function of the text, rounded to four decimals.
    """

    def __init__(self) -> None:
        self._analyzer: Any = None

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Rewards:
        """Compound scores (N,), float64.

        Raises:
            InputError: the package vaderSentiment is not installed.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions")
        if self._analyzer is None:
            self._analyzer = _analyzer()
        compound = [self._analyzer.polarity_scores(text)["compound"] for text in completions]
        return Rewards(mean=torch.tensor(compound, dtype=torch.float64))


def _analyzer() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ModuleNotFoundError as error:
        raise InputError(
            f"oracle: vader needs the package {error.name}, which is not installed; run `pip install 'nashtune[demo]'`"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it opens its lexicon with codecs.open, deprecated in 3.14
        return SentimentIntensityAnalyzer()
