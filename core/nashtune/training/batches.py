"""From an engine's N sequences to what a loss sees.

Legend: B = pairs, E = examples, N = sequences (2B or 2E: see `TokenBatch`).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nashtune.interfaces import Anchor, ExampleBatch, LogProbs, PairBatch, TokenBatch


def pair_batch(
    batch: TokenBatch, policy: LogProbs, anchors: Mapping[str, LogProbs], statistics: Mapping[str, Tensor]
) -> PairBatch:
    """Split 2B sequences (chosen, then rejected) into pairs."""
    chosen_w, chosen_l = policy.sums.chunk(2)
    len_w, len_l = policy.lengths.chunk(2)
    return PairBatch(
        policy_chosen=chosen_w,
        policy_rejected=chosen_l,
        len_chosen=len_w,
        len_rejected=len_l,
        anchors={name: Anchor(chosen=a.sums.chunk(2)[0], rejected=a.sums.chunk(2)[1]) for name, a in anchors.items()},
        p_chosen=batch.p_chosen,
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
