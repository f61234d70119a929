"""The `dense` engine: full logits, the float32 reference that every other engine must equal.

Legend: N = sequences, T = positions, M = completion tokens, H = hidden size, V = vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.layout import Layout
from nashtune.interfaces.policy import Encoded, LogProbEngine, TokenStatistics
from nashtune.logprobs.head import accumulation_dtype, base_model
from nashtune.logprobs.layout import check_predicted, collect, padded_layout, sum_per_sequence
from nashtune.logprobs.masks import counted_padding
from nashtune.logprobs.positions import model_inputs


@dataclass(frozen=True, kw_only=True)
class DenseFeatures:
    """Logits (M, V) at the predicting positions, float32 or wider, and the hidden states that they come from."""

    logits: Tensor
    encoded: Encoded
    at: Layout


class DenseEngine(LogProbEngine):
    """Runs the model as it is and takes a float32 log-softmax of its logits. Memory grows with (N, T, V)."""

    def plan(self, batch: TokenBatch) -> Layout:
        """Positions of the padded batch."""
        return padded_layout(batch)

    def encode(self, trunk: Any, batch: TokenBatch) -> Encoded:
        """One padded pass of a backbone."""
        at = _at(batch)
        with counted_padding(at):
            return _pick(trunk(**model_inputs(trunk, batch)).last_hidden_state, at)

    def forward(self, model: Any, batch: TokenBatch) -> DenseFeatures:
        """One pass of the model; its logits at the M positions that predict a completion token."""
        at = _at(batch)
        check_predicted(at)
        seen: list[Tensor] = []  # from a hook: `output_hidden_states` would keep every layer's
        hook = base_model(model).get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            with counted_padding(at):
                logits = model(**model_inputs(base_model(model), batch)).logits.flatten(0, 1)[at.before]
        finally:
            hook.remove()
        return DenseFeatures(logits=logits.to(accumulation_dtype(logits.dtype)), encoded=_pick(seen[0], at), at=at)

    def logprobs(self, features: DenseFeatures, batch: TokenBatch) -> LogProbs:
        """Log-probs of the completions."""
        with torch.autocast(features.logits.device.type, enabled=False):
            token_logp = features.logits.log_softmax(-1).gather(1, features.at.target[:, None])[:, 0]
            return collect(token_logp, features.at)

    def states(self, features: DenseFeatures) -> Encoded:
        """What entered the LM head."""
        return features.encoded

    def compared(
        self, policy: DenseFeatures, ref: DenseFeatures, batch: TokenBatch, fn: TokenStatistics
    ) -> tuple[LogProbs, LogProbs, dict[str, Tensor]]:
        """Log-probs of both, and sums over each completion (N,) of what `fn` returns for all M tokens at once."""
        with torch.autocast(policy.logits.device.type, enabled=False), torch.no_grad():
            values = fn(policy.logits.detach(), ref.logits.detach(), policy.at.target)
            sums = {name: sum_per_sequence(value, policy.at) for name, value in values.items()}
        with torch.no_grad():
            frozen = self.logprobs(ref, batch)
        return self.logprobs(policy, batch), frozen, sums


def _at(batch: TokenBatch) -> Layout:
    """The padded layout; one that another engine planned is not for this one."""
    return batch.layout if batch.layout is not None and batch.layout.packed is None else padded_layout(batch)


def _pick(hidden_NTH: Tensor, at: Layout) -> Encoded:
    flat = hidden_NTH.flatten(0, 1)
    return Encoded(hidden=flat[at.before], last=flat[at.last])
