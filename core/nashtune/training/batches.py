"""From an engine's N sequences to what a loss sees.

Legend: B = pairs, E = examples, S = rollouts, L = ranked lists, N = sequences (2B, 2E, S, ...: see `TokenBatch`),
M = completion tokens, K = members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nashtune.interfaces import Anchor, ExampleBatch, LogProbs, PairBatch, RolloutBatch, ScoreBatch, TokenBatch


def pair_batch(
    batch: TokenBatch, policy: LogProbs, anchors: Mapping[str, LogProbs], statistics: Mapping[str, Tensor]
) -> PairBatch:
    """Split 2B sequences (chosen, then rejected) into pairs."""
    chosen_w, chosen_l = policy.sums.chunk(2)
    len_w, len_l = policy.lengths.chunk(2)
    win_w, win_l = batch.win_rate.chunk(2) if batch.win_rate is not None else (None, None)
    variance_w, variance_l = batch.variance.chunk(2) if batch.variance is not None else (None, None)
    return PairBatch(
        policy_chosen=chosen_w,
        policy_rejected=chosen_l,
        len_chosen=len_w,
        len_rejected=len_l,
        anchors={name: Anchor(chosen=a.sums.chunk(2)[0], rejected=a.sums.chunk(2)[1]) for name, a in anchors.items()},
        p_chosen=batch.p_chosen,
        win_rate_chosen=win_w,
        win_rate_rejected=win_l,
        variance_chosen=variance_w,
        variance_rejected=variance_l,
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


def rollout_batch(
    batch: TokenBatch, policy: LogProbs, anchors: Mapping[str, Tensor], values: tuple[Tensor, Tensor] | None
) -> RolloutBatch:
    """S completions token by token, with what the oracle said of them and what was computed before the update.

    Args:
        batch: Token ids, scores, and values per token.
        policy: Log-probs now.
        anchors: Per-token log-probs under the references (M,).
        values: The critic's now, before each token (M,) and after the last (S,), where there is one.
    """
    assert batch.score is not None, "a rollouts batch carries its scores"
    known = batch.per_token
    return RolloutBatch(
        token_logp=policy.token_logp,
        # the layout's, where the batch was counted: repeat_interleave asks the device for the number of tokens
        sequence=batch.layout.sequence if batch.layout is not None else torch.repeat_interleave(policy.lengths),
        lengths=policy.lengths,
        counts=batch.counts,
        score=batch.score,
        anchors=anchors,
        group=batch.group,
        finished=batch.finished,
        variance=batch.variance,
        old=known.get("old"),
        old_value=known.get("old_value"),
        old_value_end=known.get("old_value_end"),
        value=values[0] if values is not None else None,
        value_end=values[1] if values is not None else None,
        advantage=known.get("advantage"),
        target=known.get("target"),
        target_end=known.get("target_end"),
    )


def known_sums(batch: TokenBatch, reference: str) -> LogProbs:
    """What was computed before, as an engine would give it; `token_logp` is empty, because only sums are kept."""
    sums = batch.known[reference]
    lengths = batch.layout.lengths if batch.layout is not None else batch.completion_mask.sum(1)
    return LogProbs(sums=sums, lengths=lengths, token_logp=sums.new_empty(0))


def score_batch(batch: TokenBatch, scores_NK: Tensor) -> ScoreBatch:
    """Lists of completions, best first; a pair is a list of two."""
    if batch.kind == "ranked":
        assert batch.sizes is not None, "a ranked batch carries the sizes of its lists"
        return ScoreBatch(
            scores=scores_NK, sizes=batch.sizes, counts=batch.counts, levels=batch.levels, share=batch.share
        )
    side_by_side = torch.stack(scores_NK.chunk(2), dim=1).flatten(0, 1)  # chosen and rejected of each pair together
    return ScoreBatch(
        scores=side_by_side,
        sizes=torch.full((len(batch),), 2, device=scores_NK.device),
        counts=(2,) * len(batch),
        margin=batch.margin,
        p_chosen=batch.p_chosen,
        share=batch.share,
    )
