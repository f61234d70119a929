"""The `dense` engine: full logits, the float32 reference that every other engine must equal.

Legend: N = sequences, T = positions, M = completion tokens, H = hidden size, V = vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.policy import LogProbEngine, TokenStatistics
from nashtune.logprobs.head import accumulation_dtype, base_model
from nashtune.logprobs.positions import (
    Predicted,
    at_last,
    collect,
    model_inputs,
    predicted,
    sum_per_sequence,
)


@dataclass(frozen=True, kw_only=True)
class DenseFeatures:
    """Logits (M, V) at the predicting positions, float32 or wider; hidden states (M, H) there, (N, H) at the ends."""

    logits: Tensor
    hidden: Tensor
    last: Tensor
    at: Predicted


class DenseEngine(LogProbEngine):
    """Runs the model as it is and takes a float32 log-softmax of its logits. Memory grows with (N, T, V)."""

    def forward(self, model: Any, batch: TokenBatch) -> DenseFeatures:
        """One pass of the model; its logits at the M positions that predict a completion token."""
        at = predicted(batch)
        seen: list[Tensor] = []  # from a hook: `output_hidden_states` would keep every layer's
        hook = base_model(model).get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            logits = at.rows(model(**model_inputs(base_model(model), batch)).logits)
        finally:
            hook.remove()
        hidden = seen[0]
        return DenseFeatures(
            logits=logits.to(accumulation_dtype(logits.dtype)),
            hidden=at.rows(hidden),
            last=at_last(hidden, batch.attention_mask),
            at=at,
        )

    def logprobs(self, features: DenseFeatures, batch: TokenBatch) -> LogProbs:
        """Log-probs of the completions."""
        with torch.autocast(features.logits.device.type, enabled=False):
            token_logp = features.logits.log_softmax(-1).gather(1, features.at.target[:, None])[:, 0]
            return collect(token_logp, batch, features.at)

    def hidden(self, features: DenseFeatures) -> Tensor:
        """What the backbone gave to the LM head."""
        return features.hidden

    def last_hidden(self, features: DenseFeatures) -> Tensor:
        """At tokens that predict nothing."""
        return features.last

    @torch.no_grad()
    def statistics(
        self, policy: DenseFeatures, ref: DenseFeatures, batch: TokenBatch, fn: TokenStatistics
    ) -> dict[str, Tensor]:
        """Sums over each completion (N,) of what `fn` returns for all M tokens at once."""
        with torch.autocast(policy.logits.device.type, enabled=False):
            values = fn(policy.logits.detach(), ref.logits.detach(), policy.at.target)
            return {name: sum_per_sequence(value, policy.at) for name, value in values.items()}
