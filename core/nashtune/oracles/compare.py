"""One way to ask either kind of oracle for preference probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nashtune.data.texts import check_lengths, key_of
from nashtune.interfaces.oracle import PreferenceOracle, Prompt, RewardOracle
from nashtune.oracles.checked import compared, scored
from nashtune.oracles.probability import bradley_terry


def probabilities(
    oracle: RewardOracle | PreferenceOracle, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
) -> Tensor:
    """P(first > second) under the oracle, float64 (N,); of a reward oracle the Bradley-Terry probability.

    NaN where a preference oracle has no verdict.
    """
    if isinstance(oracle, RewardOracle):
        return bradley_terry(*scores_of_pairs(oracle, prompts, first, second))
    return compared(oracle, prompts, first, second)


def scores_of_pairs(
    oracle: RewardOracle, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Rewards of both sides of N comparisons, float64 (N,) each; a text that stands in several is scored once."""
    n = check_lengths(prompts, first, second)
    asked: dict[Any, int] = {}
    where = [
        asked.setdefault((key_of(prompt), text), len(asked))
        for prompt, text in zip([*prompts, *prompts], [*first, *second], strict=True)
    ]
    of = dict(zip(where, [*prompts, *prompts], strict=True))
    found = scored(oracle, [of[i] for i in range(len(asked))], [text for _, text in asked])
    rewards = found.mean.double().cpu()
    return rewards[where[:n]], rewards[where[n:]]
