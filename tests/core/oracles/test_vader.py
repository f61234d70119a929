"""VADER as a reward oracle."""

from __future__ import annotations

import sys

import pytest
import torch

from nashtune.errors import InputError
from nashtune.oracles.vader import VaderOracle


def test_scores_follow_sentiment_and_stay_in_range():
    texts = ["This is a wonderful, lovely day!", "The table is in the kitchen.", "This is a horrible, awful day!"]
    rewards = VaderOracle().score([""] * 3, texts)
    assert rewards.mean.dtype == torch.float64
    assert rewards.mean[0] > 0.5 and rewards.mean[1] == 0.0 and rewards.mean[2] < -0.5
    assert rewards.mean.abs().max() <= 1.0
    assert rewards.variance is None and rewards.members is None


def test_the_prompt_does_not_count():
    oracle = VaderOracle()
    assert torch.equal(oracle.score(["I hate it"], ["Good."]).mean, oracle.score(["I love it"], ["Good."]).mean)


def test_nothing_scored_gives_nothing():
    assert VaderOracle().score([], []).mean.shape == (0,)


def test_unequal_lists_are_refused():
    with pytest.raises(ValueError, match="1 prompts for 2 completions"):
        VaderOracle().score(["a"], ["b", "c"])


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(InputError, match=r"vaderSentiment.*pip install 'nashtune\[demo\]'"):
        VaderOracle().score([""], ["text"])
