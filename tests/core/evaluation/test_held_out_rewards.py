from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
import torch
from rich.console import Console

from nashtune.evaluation.held_out_rewards import held_out_rewards
from nashtune.interfaces import RewardOracle, Rewards
from nashtune.interfaces.oracle import Prompt

PROMPTS = ["a", "b", "c"]
ANSWERS = {"start": ["1", "2", "3"], "now": ["2", "2", "8"]}


class Reads(RewardOracle):
    """The reward is the number that the answer says."""

    def __init__(self, variance: bool) -> None:
        self.variance, self.calls = variance, 0

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
        self.calls += 1
        mean = torch.tensor([float(text) for text in completions])
        return Rewards(mean=mean, variance=mean / 10 if self.variance else None)


def test_means_errors_and_the_paired_change() -> None:
    oracle = Reads(variance=True)
    found = held_out_rewards(oracle, PROMPTS, ANSWERS)
    assert oracle.calls == 2, "what a policy's answers get does not depend on another policy's"
    assert found.policies["start"] == pytest.approx({"mean": 2.0, "se": 1 / 3**0.5, "variance": 0.2})
    assert found.policies["now"] == pytest.approx({"mean": 4.0, "se": 12**0.5 / 3**0.5, "variance": 0.4})
    assert found.change == pytest.approx({"mean": 2.0, "se": 7**0.5 / 3**0.5})  # of 1, 0 and 5


class Compares(Reads):
    """Takes away the mean over the answers that a prompt has in the call, as a centred ensemble does."""

    counts_groups = True

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Rewards:
        found = super().score(prompts, completions)
        away = torch.tensor([found.mean[[p == one for p in prompts]].mean() for one in prompts])
        return Rewards(mean=found.mean, variance=(found.mean - away).square())


def test_rewards_depend_on_no_opponent_and_the_variance_of_a_single_answer_is_not_reported() -> None:
    both = held_out_rewards(Compares(True), PROMPTS, ANSWERS).policies
    alone = held_out_rewards(Compares(True), PROMPTS, {"now": ANSWERS["now"]}).policies
    assert both["now"] == alone["now"] and both["now"]["variance"] is None
    again = held_out_rewards(Compares(True), ["a", "a"], {"now": ["1", "3"]}).policies
    assert again["now"]["variance"] == 1.0, "a prompt that is asked twice has two answers"


def test_the_table_names_the_variance_only_where_it_is_known() -> None:
    for known in (True, False):
        stream = io.StringIO()
        Console(file=stream, width=80).print(held_out_rewards(Reads(known), PROMPTS, ANSWERS).table())
        text = stream.getvalue()
        assert "now - start" in text and "+2.000 ± 1.528" in text
        assert ("mean variance" in text) == known


def test_one_prompt_shows_no_error() -> None:
    found = held_out_rewards(Reads(False), ["a"], {"start": ["1"], "now": ["2"]})
    assert found.policies["start"] == {"mean": 1.0, "se": None, "variance": None}
    assert found.change == {"mean": 1.0, "se": None}
