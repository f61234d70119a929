"""The `tiled` engine: only completion positions go through the LM head, in tiles; the (N, T, V) logits never exist.

Legend: N = sequences, T = positions, M = completion tokens, H = hidden size, V = vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.policy import LogProbEngine, TokenStatistics
from nashtune.logprobs.head import Head, backbone, check_head, find_head
from nashtune.logprobs.positions import (
    Predicted,
    at_last,
    collect,
    model_inputs,
    predicted,
    sum_per_sequence,
)
from nashtune.logprobs.tiles import MIB, Tiling, tiled_logprobs


@dataclass(frozen=True, kw_only=True)
class TiledFeatures:
    """Hidden states (M, H) at the predicting positions and (N, H) at the last ones, with the head that reads them."""

    hidden: Tensor
    last: Tensor
    head: Head
    at: Predicted


class TiledEngine(LogProbEngine):
    """Backbone once, then token x vocabulary tiles with an online logsumexp; equals `dense` in value and gradient.

    Args:
        tile_mib: Size of a tile of logits in MiB of float32; None takes 32 on a CPU, 256 on an accelerator.
        kept_mib: Tiles kept from forward to backward instead of computed again, in MiB; never more than a quarter of
            the logits. None takes 96 on a CPU, 512 on an accelerator.
        tokens: Tokens in a tile, at most; the vocabulary fills the rest.
    """

    def __init__(self, *, tile_mib: float | None = None, kept_mib: float | None = None, tokens: int = 2048) -> None:
        if tile_mib is not None and tile_mib <= 0:
            raise ValueError(f"tile_mib must be above 0, got {tile_mib}")
        if kept_mib is not None and kept_mib < 0:
            raise ValueError(f"kept_mib must not be negative, got {kept_mib}")
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {tokens}")
        self.tile_mib = tile_mib
        self.kept_mib = kept_mib
        self.tokens = tokens

    def forward(self, model: Any, batch: TokenBatch) -> TiledFeatures:
        """One pass of the backbone; its hidden states at the M positions that predict a completion token.

        Raises:
            InputError: the model's logits are not what its LM head makes of its hidden states, or the head carries
                LoRA.
        """
        at = predicted(batch)
        check_head(model, batch)
        decoder = backbone(model)
        hidden = decoder(**model_inputs(decoder, batch)).last_hidden_state
        last = at_last(hidden, batch.attention_mask)
        return TiledFeatures(hidden=at.rows(hidden), last=last, head=find_head(model), at=at)

    def logprobs(self, features: TiledFeatures, batch: TokenBatch) -> LogProbs:
        """Log-probs of the completions."""
        tiling = self._tiling(features.hidden.device)
        token_logp = tiled_logprobs(features.hidden, features.head, features.at.target, tiling)
        return collect(token_logp, batch, features.at)

    def hidden(self, features: TiledFeatures) -> Tensor:
        """As they entered the LM head."""
        return features.hidden

    def last_hidden(self, features: TiledFeatures) -> Tensor:
        """Of tokens that predict nothing."""
        return features.last

    @torch.no_grad()
    def statistics(
        self, policy: TiledFeatures, ref: TiledFeatures, batch: TokenBatch, fn: TokenStatistics
    ) -> dict[str, Tensor]:
        """Sums over each completion (N,) of `fn`, called on as many tokens (full vocabulary) as fit in half a tile."""
        at = policy.at
        # what `fn` makes of two logits is alive too: peak memory is some four times the budget of a tile
        budget = self._tiling(policy.hidden.device).tile_bytes // 2
        rows = max(1, min(self.tokens, budget // (4 * policy.head.weight.shape[0])))
        policy_head, ref_head = policy.head.cast(), ref.head.cast()
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, len(at.target), rows):
            span = slice(start, start + rows)
            values = fn(policy_head.logits(policy.hidden[span]), ref_head.logits(ref.hidden[span]), at.target[span])
            for name, value in values.items():
                parts.setdefault(name, []).append(value)
        return {name: sum_per_sequence(torch.cat(part), at) for name, part in parts.items()}

    def _tiling(self, device: torch.device) -> Tiling:
        default = Tiling.on(device)
        return Tiling(
            tokens=self.tokens,
            tile_bytes=default.tile_bytes if self.tile_mib is None else int(self.tile_mib * MIB),
            kept_bytes=default.kept_bytes if self.kept_mib is None else int(self.kept_mib * MIB),
        )
