"""The `tiled` engine: only completion positions go through the LM head, in tiles; the (N, T, V) logits never exist.

Legend: N = sequences, T = positions, M = completion tokens, H = hidden size, V = vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.layout import Layout
from nashtune.interfaces.policy import Encoded, LogProbEngine, TokenStatistics
from nashtune.logprobs.head import Head, backbone, check_head, find_head
from nashtune.logprobs.layout import check_predicted, collect, padded_layout, sum_per_sequence
from nashtune.logprobs.positions import model_inputs
from nashtune.logprobs.tiles import MIB, Tiling, tiled_logprobs


@dataclass(frozen=True, kw_only=True)
class TiledFeatures:
    """Hidden states of a batch, with the head that reads them."""

    encoded: Encoded
    head: Head
    at: Layout


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

    def plan(self, batch: TokenBatch) -> Layout:
        """Positions of the padded batch."""
        return padded_layout(batch)

    def encode(self, trunk: Any, batch: TokenBatch) -> Encoded:
        """One padded pass of a backbone."""
        at = batch.layout or self.plan(batch)
        flat = trunk(**model_inputs(trunk, batch)).last_hidden_state.flatten(0, 1)
        return Encoded(hidden=flat[at.before], last=flat[at.last])

    def forward(self, model: Any, batch: TokenBatch) -> TiledFeatures:
        """One pass of the backbone; its hidden states at the M positions that predict a completion token.

        Raises:
            InputError: the model's logits are not what its LM head makes of its hidden states, or the head carries
                LoRA.
        """
        if batch.layout is None:
            batch = replace(batch, layout=self.plan(batch))
        assert batch.layout is not None
        check_predicted(batch.layout)
        check_head(model, batch)
        return TiledFeatures(encoded=self.encode(backbone(model), batch), head=find_head(model), at=batch.layout)

    def logprobs(self, features: TiledFeatures, batch: TokenBatch) -> LogProbs:
        """Log-probs of the completions."""
        hidden = features.encoded.hidden
        return collect(
            tiled_logprobs(hidden, features.head, features.at.target, self._tiling(hidden.device)), features.at
        )

    def states(self, features: TiledFeatures) -> Encoded:
        """What entered the LM head."""
        return features.encoded

    def compared(
        self, policy: TiledFeatures, ref: TiledFeatures, batch: TokenBatch, fn: TokenStatistics
    ) -> tuple[LogProbs, LogProbs, dict[str, Tensor]]:
        """Log-probs of both, and sums of `fn`, called on as many tokens (full vocabulary) as fit in half a tile."""
        with torch.no_grad():
            sums = self._sums(policy, ref, fn)
            frozen = self.logprobs(ref, batch)
        return self.logprobs(policy, batch), frozen, sums

    def _sums(self, policy: TiledFeatures, ref: TiledFeatures, fn: TokenStatistics) -> dict[str, Tensor]:
        at, own, other = policy.at, policy.encoded.hidden, ref.encoded.hidden
        # what `fn` makes of two logits is alive too: peak memory is some four times the budget of a tile
        budget = self._tiling(own.device).tile_bytes // 2
        rows = max(1, min(self.tokens, budget // (4 * policy.head.weight.shape[0])))
        policy_head, ref_head = policy.head.cast(), ref.head.cast()
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, at.num_targets, rows):
            span = slice(start, start + rows)
            values = fn(policy_head.logits(own[span]), ref_head.logits(other[span]), at.target[span])
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
