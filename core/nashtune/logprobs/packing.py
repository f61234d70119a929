"""From a right-padded batch to one flat sequence without padding, counted on the host.

A group of sequences that begin alike keeps its longest common prefix once; sequences that are equal stand there once.

Legend: N = sequences, T = positions, M = completion tokens, F = positions of the flattened batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from nashtune.interfaces.batch import TokenBatch
from nashtune.interfaces.layout import Layout, Packed, Segment
from nashtune.logprobs.layout import check_masks

Ids = NDArray[np.int64]

LEAST_PREFIX = 4
"""Tokens that a prefix must have to be shared. Measured on a CPU at a hidden size of 512: sharing is never slower, and
below four tokens what it saves is lost in the noise (4 to 7 % at 4 tokens before answers of 40)."""


def packed_layout(batch: TokenBatch, *, share: bool) -> Layout:
    """Where the tokens of a batch are once padding is gone.

    Args:
        batch: On the host: its tokens are compared here.
        share: Whether common prefixes and equal sequences stand there once.

    Raises:
        ValueError: a completion covers padding, or a sequence has no token.
    """
    mask_NT = check_masks(batch).cpu().numpy()
    attended_NT = batch.attention_mask.bool().cpu().numpy()
    ids_NT = batch.input_ids.cpu().numpy()
    ids = [row[attended] for row, attended in zip(ids_NT, attended_NT, strict=True)]
    scored = [row[attended] for row, attended in zip(mask_NT, attended_NT, strict=True)]
    unique, alias = _distinct(ids) if share else (list(range(len(ids))), list(range(len(ids))))
    groups = _groups(batch, ids, scored, unique) if share else [[n] for n in unique]
    flat = _Flat()
    for members in groups:
        flat.add(members, [ids[n] for n in members])
    before, last, sequence, target = [], [], [], []
    for n, (own, mask) in enumerate(zip(ids, scored, strict=True)):
        places = flat.places[alias[n]]
        at = np.flatnonzero(mask[1:])  # nothing predicts a first token
        before.append(places[at])
        target.append(own[at + 1])
        sequence.append(np.full(len(at), n))
        last.append(places[-1])
    return Layout(
        sequence=_tensor(sequence),
        target=_tensor(target),
        before=_tensor(before),
        last=torch.tensor(np.array(last)),
        lengths=torch.tensor([len(at) for at in before]),
        num_sequences=len(ids),
        num_targets=sum(len(at) for at in before),
        tokens=sum(len(own) for own in ids),
        positions=flat.length,
        begins=any(bool(mask[0]) for mask in scored),
        packed=flat.packed(),
    )


class _Flat:
    """The flat sequence as it grows."""

    def __init__(self) -> None:
        self.length = 0
        self.places: dict[int, Ids] = {}  # of a sequence: the flat position of each of its tokens
        self._segments: list[Segment] = []
        self._columns: list[Ids] = []  # ids, position in the sequence, group, branch, prefix; one array a segment
        self._groups = 0

    def add(self, members: Sequence[int], ids: Sequence[Ids]) -> None:
        """A group: its common prefix with the first branch behind it, then a segment for each further branch."""
        prefix = common_prefix(ids) if len(ids) > 1 else 0
        start = self.length
        for branch, (n, own) in enumerate(zip(members, ids, strict=True)):
            begins = 0 if branch == 0 else prefix
            length = len(own) - begins
            shared = np.arange(start, start + begins)
            self.places[n] = np.concatenate([shared, np.arange(self.length, self.length + length)])
            if length:  # a sequence that is the prefix itself has no tokens of its own
                self._segments.append(
                    Segment(
                        start=self.length,
                        length=length,
                        prefix_start=start if begins else 0,
                        prefix_length=begins,
                    )
                )
                self._columns.append(
                    np.stack(
                        [
                            own[begins:],
                            np.arange(begins, len(own)),
                            np.full(length, self._groups),
                            np.full(length, branch),
                            np.full(length, prefix),
                        ]
                    )
                )
                self.length += length
        self._groups += 1

    def packed(self) -> Packed:
        """What the backbone is given."""
        ids, positions, group, branch, prefix = torch.from_numpy(np.concatenate(self._columns, axis=1))
        return Packed(
            input_ids=ids[None].clone(),
            position_ids=positions[None].clone(),
            segments=tuple(self._segments),
            group=group.to(torch.int32),
            branch=branch.to(torch.int32),
            prefix=prefix.to(torch.int32),
        )


def common_prefix(ids: Sequence[Ids]) -> int:
    """Tokens that all of the sequences begin with."""
    length = min(len(own) for own in ids)
    for own in ids[1:]:
        differs = np.flatnonzero(own[:length] != ids[0][:length])
        length = int(differs[0]) if len(differs) else length
    return length


def _distinct(ids: Sequence[Ids]) -> tuple[list[int], list[int]]:
    """The first of each run of equal sequences, and for every sequence which of those it equals."""
    first: dict[bytes, int] = {}
    alias = [first.setdefault(own.tobytes(), n) for n, own in enumerate(ids)]
    return list(first.values()), alias


def _groups(
    batch: TokenBatch, ids: Sequence[Ids], scored: Sequence[NDArray[np.bool_]], unique: list[int]
) -> list[list[int]]:
    """Sequences with equal prompts, and partners of a row whose prompts differ but that begin alike.

    Equal prompts come first: rows of one prompt may stand in several pairs. A partner joins only where both would be
    alone, so that no group's prefix gets shorter than its prompt.
    """
    prompts: dict[tuple[bool, bytes], list[int]] = {}
    for n in unique:
        end = int(scored[n].argmax()) if scored[n].any() else len(ids[n])
        worth = end >= LEAST_PREFIX
        prompts.setdefault((worth, (ids[n][:end] if worth else ids[n]).tobytes()), []).append(n)
    groups = {members[0]: members for members in prompts.values()}
    for row in _rows(batch):
        alone = [n for n in row if len(groups.get(n, ())) == 1]
        if len(alone) > 1 and common_prefix([ids[n] for n in alone]) >= LEAST_PREFIX:
            groups[alone[0]] = [n for one in alone for n in groups.pop(one)]
    return list(groups.values())


def _rows(batch: TokenBatch) -> Iterable[Sequence[int]]:
    """The sequences of each row, where a row has several."""
    rows, sequences = len(batch), len(batch.input_ids)
    if batch.sizes is not None:
        ends = batch.sizes.cpu().cumsum(0).tolist()
        return [range(end - size, end) for end, size in zip(ends, batch.sizes.tolist(), strict=True)]
    return [(i, i + rows) for i in range(rows)] if sequences == 2 * rows else []


def _tensor(parts: Sequence[Ids]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))
