"""Gain and bias that put the scores of a trained reward model on a common scale.

Members of an ensemble have offsets and scales of their own, which the loss of pairs does not see. What is stored is
reward = gain * output + bias. `gain_bias` is Ziegler et al. (arXiv:1909.08593): gain = 1/std and bias = -gain * mean;
`bias` subtracts the mean alone, as the N+ implementation details of summarisation do. Both use samples of the reference
policy; we use the chosen answers of training rows, which a reward run has at hand.

Legend: N = sequences, K = members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from nashtune.interfaces.batch import TokenBatch
from nashtune.models.mode import frozen_mode

if TYPE_CHECKING:
    from nashtune.data.module import PreferenceData
    from nashtune.models.reward_policy import RewardPolicy

ROWS = 256
"""Rows that are scored, spread evenly over the data; Ziegler et al. use as many samples."""


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """reward = gain * output + bias, for each member.

    Args:
        gain: > 0.
        bias: In units of the reward.
    """

    gain: list[float]
    bias: list[float]

    @classmethod
    def identity(cls, members: int) -> Normaliser:
        """The one that changes nothing."""
        return cls(gain=[1.0] * members, bias=[0.0] * members)

    @classmethod
    def of(cls, scores_NK: Tensor, kind: Literal["bias", "gain_bias"]) -> Normaliser:
        """Each member's mean becomes 0, and with `gain_bias` its standard deviation (population) 1.

        Args:
            scores_NK: Outputs of the members (N, K), float64.
            kind: Which of the two.
        """
        mean_K, std_K = scores_NK.mean(0), scores_NK.std(0, correction=0)
        gain_K = torch.ones_like(mean_K)
        if kind == "gain_bias":
            gain_K = torch.where(std_K > 0, 1 / std_K, gain_K)  # equal scores have no scale to bring to 1
        return cls(gain=gain_K.tolist(), bias=(-gain_K * mean_K).tolist())


def measure(
    policy: RewardPolicy, batches: Iterable[TokenBatch], kind: Literal["bias", "gain_bias"] = "gain_bias"
) -> Normaliser:
    """The normaliser over the chosen answers of batches, each already on the policy's device or not."""
    with frozen_mode(policy):
        found = [policy.scores(chosen(batch).to(policy.device)).double().cpu() for batch in batches]
    return Normaliser.of(torch.cat(found), kind)


def chosen(batch: TokenBatch) -> TokenBatch:
    """The best completion of each pair or list."""
    if batch.kind == "ranked":
        assert batch.sizes is not None, "a ranked batch carries the sizes of its lists"
        best = batch.sizes.cumsum(0) - batch.sizes
    else:
        best = torch.arange(len(batch), device=batch.rows.device)
    return replace(
        batch,
        input_ids=batch.input_ids[best],
        attention_mask=batch.attention_mask[best],
        completion_mask=batch.completion_mask[best],
    )


def normalise(policy: RewardPolicy, data: PreferenceData) -> None:
    """At the end of training: give the policy all that consumers of its folder must know.

    That is template and length of the data's texts, and, where `head.normalise` says so, gain and bias. These are
    measured as a reader of the folder computes scores: not under the steps' autocast, and not from what a frozen trunk
    said under it.
    """
    policy.forget()
    policy.template, policy.max_length = data.template, data.limits.whole
    kind = policy.head.normalise
    policy.normaliser = Normaliser.identity(policy.members) if kind == "none" else measure(policy, _some(data), kind)


def _some(data: PreferenceData) -> Iterator[TokenBatch]:
    """At most `ROWS` training rows, evenly spread, in batches."""
    loader = data.every_row("train")
    rows = range(0, len(loader.rows), -(-len(loader.rows) // ROWS))
    for first in range(0, len(rows), data.eval_batch_size):
        yield loader.collate([(row, loader.rows[row]) for row in rows[first : first + data.eval_batch_size]])
