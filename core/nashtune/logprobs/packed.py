"""The engines `shared` and `packed`: batches without padding, in `shared` each common prefix computed once.

Legend: N = sequences, M = completion tokens, F = flat positions, H = hidden size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nashtune.errors import InputError
from nashtune.interfaces.batch import TokenBatch
from nashtune.interfaces.layout import Layout
from nashtune.interfaces.policy import Encoded
from nashtune.logprobs.attention import Backend, PackedPass
from nashtune.logprobs.layout import padded_layout
from nashtune.logprobs.packable import not_packable, packed_hidden, trunk_of, why_packable
from nashtune.logprobs.packing import packed_layout
from nashtune.logprobs.tiled import TiledEngine
from nashtune.notes import note


class PackedEngine(TiledEngine):
    """One flat sequence without padding, and the LM head of `tiled`; equals `dense` in value and gradient.

    Args:
        attention_backend: What computes the attention; None chooses by device: see docs/engines.md.
        options: As `TiledEngine`.
    """

    pads = False
    name = "packed"
    share = False

    def __init__(self, *, attention_backend: Backend | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.attention_backend = attention_backend

    def check(self, model: Any) -> None:
        """See whether a model can be packed.

        Raises:
            InputError: it cannot; the message says why.
        """
        self._check(trunk_of(model))

    def plan(self, batch: TokenBatch) -> Layout:
        """Positions of the flat sequence."""
        return packed_layout(batch, share=self.share)

    def encode(self, trunk: Any, batch: TokenBatch) -> Encoded:
        """One packed pass of a backbone.

        Raises:
            InputError: the backbone cannot run one.
        """
        at = self.laid_out(trunk, batch).layout
        assert at is not None and at.packed is not None
        hidden_FH = packed_hidden(trunk, PackedPass(at.packed, self.attention_backend))
        return Encoded(hidden=hidden_FH[at.before], last=hidden_FH[at.last])

    def laid_out(self, trunk: Any, batch: TokenBatch) -> TokenBatch:
        """The batch with a packed layout; made here, from tokens on the device, only where none was planned."""
        self._check(trunk)
        if batch.layout is None or batch.layout.packed is None:
            return replace(batch, layout=self.plan(batch).to(batch.input_ids.device))
        return batch

    def _check(self, trunk: Any) -> None:
        if reason := not_packable(trunk):
            raise InputError(f"engine: {self.name} cannot run this model: {reason}; use engine auto or tiled")


class SharedEngine(PackedEngine):
    """As `packed`, and a prefix that several sequences begin with stands there once; equal sequences too."""

    name = "shared"
    share = True


class AutoEngine(SharedEngine):
    """`shared` for models that can be packed, `tiled` for the others.

    Before `attach` it plans padded batches, which every model can run. A reference that cannot be packed beside a
    policy that can gets its batches padded again.
    """

    name = "auto"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pads = True
        self._told: set[str] = set()

    def check(self, model: Any) -> None:
        """Nothing to refuse: such a model gets padded batches."""

    def attach(self, model: Any) -> None:
        """Decide by the policy's model, and say what was taken and why."""
        trunk = trunk_of(model)
        self.pads = not self._packs(trunk)
        if not self.pads:
            note(f"engine auto packs batches and shares prompts (shared): {why_packable(trunk)}")

    def plan(self, batch: TokenBatch) -> Layout:
        """Positions of the flat sequence, or of the padded batch."""
        return padded_layout(batch) if self.pads else super().plan(batch)

    def encode(self, trunk: Any, batch: TokenBatch) -> Encoded:
        """One pass of a backbone, packed where the batch's layout is and the backbone can."""
        batch = self.laid_out(trunk, batch)
        assert batch.layout is not None
        return TiledEngine.encode(self, trunk, batch) if batch.layout.packed is None else super().encode(trunk, batch)

    def laid_out(self, trunk: Any, batch: TokenBatch) -> TokenBatch:
        """The batch with the layout that was planned, padded instead where the backbone cannot be packed."""
        if batch.layout is None or (batch.layout.packed is not None and not self._packs(trunk)):
            return replace(batch, layout=padded_layout(batch))
        return batch

    def _packs(self, trunk: Any) -> bool:
        reason = not_packable(trunk)
        if reason is not None and reason not in self._told:
            self._told.add(reason)
            note(f"engine auto runs padded batches (tiled): {reason}")
        return reason is None
