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
from nashtune.logprobs.masks import counted_padding
from nashtune.logprobs.positions import model_inputs
from nashtune.logprobs.tiles import tiled_comparison, tiled_logprobs
from nashtune.logprobs.tiling import MIB, Tiling


@dataclass(frozen=True, kw_only=True)
class TiledFeatures:
    """Hidden states of a batch, with the head that reads them."""

    encoded: Encoded
    head: Head
    at: Layout


class TiledEngine(LogProbEngine):
    """Backbone once, then token x vocabulary tiles; equals `dense` in value and gradient.

    Args:
        tile_mib: Size of a tile of logits in MiB of float32; None takes 8 on a CPU and 1/512 of the memory of a GPU.
        kept_mib: Products kept from forward to backward instead of computed again, in MiB; never more than a quarter of
            what the logits take in float32. None takes 16 on a CPU and 1/64 of the memory of a GPU.
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
        at = self.laid_out(trunk, batch).layout
        assert at is not None
        with counted_padding(at):
            flat = trunk(**model_inputs(trunk, batch)).last_hidden_state.flatten(0, 1)
        return Encoded(hidden=flat[at.before], last=flat[at.last])

    def laid_out(self, trunk: Any, batch: TokenBatch) -> TokenBatch:
        """The batch with a layout that this engine runs on that backbone."""
        if batch.layout is None or batch.layout.packed is not None:
            return replace(batch, layout=padded_layout(batch))
        return batch

    def forward(self, model: Any, batch: TokenBatch) -> TiledFeatures:
        """One pass of the backbone; its hidden states at the M positions that predict a completion token.

        Raises:
            InputError: the model's logits are not what its LM head makes of its hidden states.
        """
        trunk = backbone(model)
        batch = self.laid_out(trunk, batch)
        assert batch.layout is not None
        check_predicted(batch.layout)
        check_head(model, batch)
        return TiledFeatures(encoded=self.encode(trunk, batch), head=find_head(model), at=batch.layout)

    def logprobs(self, features: TiledFeatures, batch: TokenBatch) -> LogProbs:
        """Log-probs of the completions."""
        hidden, at = features.encoded.hidden, features.at
        return collect(tiled_logprobs(hidden, features.head, at.target, self._tiling(hidden.device)), at)

    def states(self, features: TiledFeatures) -> Encoded:
        """What entered the LM head."""
        return features.encoded

    def compared(
        self, policy: TiledFeatures, ref: TiledFeatures, batch: TokenBatch, fn: TokenStatistics
    ) -> tuple[LogProbs, LogProbs, dict[str, Tensor]]:
        """Log-probs of both, and sums of `fn`, called on as many tokens (full vocabulary) as fit in a quarter tile."""
        at, hidden = policy.at, policy.encoded.hidden
        logp_M, frozen_M, values = tiled_comparison(
            (hidden, policy.head),
            None if ref is policy else (ref.encoded.hidden, ref.head),
            at.target,
            fn,
            self._tiling(hidden.device),
        )
        sums = {name: sum_per_sequence(value, at) for name, value in values.items()}
        return collect(logp_M, at), collect(frozen_M, at), sums

    def _tiling(self, device: torch.device) -> Tiling:
        default = Tiling.on(device)
        return Tiling(
            tokens=self.tokens,
            tile_bytes=default.tile_bytes if self.tile_mib is None else int(self.tile_mib * MIB),
            kept_bytes=default.kept_bytes if self.kept_mib is None else int(self.kept_mib * MIB),
        )
