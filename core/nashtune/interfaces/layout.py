"""Where the tokens of a micro-batch are, counted on the host before the batch moves to its device.

An engine counts once (`LogProbEngine.plan`); the step that follows then asks the device for no sizes and waits for it
nowhere.

Legend: N = sequences, T = positions, M = completion tokens, F = positions of a flattened batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Tokens that attend causally to each other, behind a prefix that they share with other segments.

    Query t of the segment sees the whole prefix and the segment's tokens up to t.

    Args:
        start: First flat position.
        length: Tokens, > 0.
        prefix_start: First flat position of the shared prefix.
        prefix_length: Its tokens; 0 where the segment begins its sequence.
    """

    start: int
    length: int
    prefix_start: int = 0
    prefix_length: int = 0


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A batch without padding: one flat sequence (1, F), in which a shared prompt stands once.

    Args:
        input_ids: (1, F).
        position_ids: Of each token in its own sequence, from 0 (1, F).
        segments: In order; together they cover the F positions.
        group: Which sequences share a prefix: one number for all of their tokens (F,).
        branch: Which segment of its group a token belongs to, 0 for the one that holds the prefix (F,).
        prefix: Tokens of the group's shared prefix, at each token (F,).
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: tuple[Segment, ...]
    group: Tensor
    branch: Tensor
    prefix: Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The completion tokens of a batch, sequences one after another, and where an engine finds what predicts them.

    Args:
        sequence: Index of the sequence that each completion token belongs to (M,).
        target: The token itself (M,).
        before: Flat position whose hidden state predicts it (M,): in a padded batch n * T + t, else in 0 .. F - 1.
        last: Flat position of the last token of each sequence (N,).
        lengths: Completion tokens of each sequence (N,).
        num_sequences: N.
        num_targets: M.
        tokens: Tokens of the N sequences, without padding and each prompt as often as it stands there.
        positions: Positions that the backbone runs on.
        begins: Whether a sequence begins with a token that is scored: nothing predicts it, so there is no log-prob.
        packed: The flat sequence; None where the batch is run as it is padded.
    """

    sequence: Tensor
    target: Tensor
    before: Tensor
    last: Tensor
    lengths: Tensor
    num_sequences: int
    num_targets: int
    tokens: int
    positions: int
    begins: bool
    packed: Packed | None = None

    def to(self, device: torch.device | str, **kwargs: Any) -> Layout:
        """The same on another device; what was counted stays on the host."""
        return self._each(lambda part: part.to(device, **kwargs))

    def pin_memory(self) -> Layout:
        """The same in memory of the host that a CUDA device reads by itself."""
        return self._each(lambda part: part.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Layout:
        packed = None if self.packed is None else replace(self.packed, **_changed(self.packed, change))
        return replace(self, **_changed(self, change), packed=packed)


def _changed(value: Layout | Packed, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: change(part) for name, part in parts.items() if hasattr(part, "new_empty")}
