"""From an engine's N sequences to what a loss sees.

Legend: B = pairs, E = examples, S = rollouts, N = sequences (2B, 2E or S: see `TokenBatch`), M = completion tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nashtune.interfaces import Anchor, ExampleBatch, LogProbs, PairBatch, RolloutBatch, TokenBatch


def pair_batch(
    batch: TokenBatch, policy: LogProbs, anchors: Mapping[str, LogProbs], statistics: Mapping[str, Tensor]
) -> PairBatch:
    """Split 2B sequences (chosen, then rejected) into pairs."""
    chosen_w, chosen_l = policy.sums.chunk(2)
    len_w, len_l = policy.lengths.chunk(2)
    win_w, win_l = batch.win_rate.chunk(2) if batch.win_rate is not None else (None, None)
    return PairBatch(
        policy_chosen=chosen_w,
        policy_rejected=chosen_l,
        len_chosen=len_w,
        len_rejected=len_l,
        anchors={name: Anchor(chosen=a.sums.chunk(2)[0], rejected=a.sums.chunk(2)[1]) for name, a in anchors.items()},
        p_chosen=batch.p_chosen,
        win_rate_chosen=win_w,
        win_rate_rejected=win_l,
        statistics_chosen={name: value.chunk(2)[0] for name, value in statistics.items()},
        statistics_rejected={name: value.chunk(2)[1] for name, value in statistics.items()},
    )


def example_batch(
    batch: TokenBatch, policy: LogProbs, anchors: Mapping[str, LogProbs], statistics: Mapping[str, Tensor]
) -> ExampleBatch:
    """Split 2E sequences (matching, then mismatched) into unpaired examples; the mismatched ones carry no gradient."""
    assert batch.desirable is not None, "an examples batch carries its labels"
    matching, mismatched = policy.sums.chunk(2)
    return ExampleBatch(
        policy=matching,
        length=policy.lengths.chunk(2)[0],
        desirable=batch.desirable,
        anchors={name: a.sums.chunk(2)[0] for name, a in anchors.items()},
        policy_mismatched=mismatched.detach(),
        anchors_mismatched={name: a.sums.chunk(2)[1] for name, a in anchors.items()},
    )


def rollout_batch(batch: TokenBatch, policy: LogProbs, anchors: Mapping[str, LogProbs]) -> RolloutBatch:
    """S completions token by token, with what the oracle said of them."""
    assert batch.score is not None, "a rollouts batch carries its scores"
    return RolloutBatch(
        token_logp=policy.token_logp,
        sequence=torch.repeat_interleave(policy.lengths),
        lengths=policy.lengths,
        score=batch.score,
        anchors={name: anchor.token_logp for name, anchor in anchors.items()},
    )
