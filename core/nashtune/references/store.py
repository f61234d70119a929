"""Log-prob sums, found by the content of a sequence.

A sum belongs to the exact token ids and completion mask of a sequence, not to a row number: rows of different splits
cannot be mistaken for each other, and changed data is a missing entry and never a wrong number.

Legend: N = sequences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nashtune.interfaces.batch import TokenBatch

Entry = tuple[float, int]  # sum in nats, completion tokens
Row = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""Token ids of a sequence and which of them are scored, without padding."""
DIGEST = 16  # bytes


def rows_of(batch: TokenBatch) -> list[Row]:
    """The N sequences of a batch, without padding."""
    real = batch.attention_mask.bool().cpu().numpy()
    ids, scored = batch.input_ids.cpu().to(torch.int64).numpy(), batch.completion_mask.bool().cpu().numpy()
    return [(ids[i][real[i]], scored[i][real[i]]) for i in range(len(real))]


def digest(row: Row) -> bytes:
    """16 bytes for the token ids and completion mask of a sequence."""
    return hashlib.blake2b(row[0].tobytes() + row[1].tobytes(), digest_size=DIGEST).digest()


def digests(batch: TokenBatch) -> list[bytes]:
    """16 bytes for each sequence: of its token ids and completion mask, padding apart."""
    return [digest(row) for row in rows_of(batch)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums(Mapping[bytes, Entry]):
    """Sum and length of each sequence by its digest: three sorted arrays, 24 bytes a sequence in float32.

    The arrays may lie on disk (mapped into memory), so that a million sequences cost no time at start and no memory of
    the process's own. It is a mapping for the sake of reading it; what is asked for often is asked with `find`.

    Args:
        names: Digests, sorted, each once (N,), dtype S16. NumPy compares them byte by byte and drops trailing zero
            bytes only when it hands one out, so an element must be read as raw bytes.
        sums: In nats (N,), float32 or float64.
        lengths: Completion tokens (N,), int32.
    """

    names: NDArray[np.bytes_]
    sums: NDArray[np.floating[Any]]
    lengths: NDArray[np.int32]

    @classmethod
    def of(cls, names: Sequence[bytes], sums: NDArray[np.floating[Any]], lengths: NDArray[np.integer[Any]]) -> Sums:
        """From digests in any order, each of them once."""
        keys = np.array(names, dtype=f"S{DIGEST}")
        order = np.argsort(keys)
        return cls(names=keys[order], sums=sums[order], lengths=lengths[order].astype(np.int32))

    def find(self, names: Sequence[bytes]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Which digests are there, and the place of each; of one that is not there, the place it would take."""
        return self._find(np.array(names, dtype=f"S{DIGEST}"))

    def _find(self, keys: NDArray[np.bytes_]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        place = np.searchsorted(self.names, keys)
        inside = place < len(self.names)
        there = np.zeros(len(keys), dtype=bool)
        there[inside] = self.names[place[inside]] == keys[inside]
        return there, place

    def merged(self, other: Sums) -> Sums:
        """With the sequences of another that are not here yet."""
        there, place = self._find(other.names)
        new, at = ~there, place[~there]
        return Sums(
            names=np.insert(self.names, at, other.names[new]),
            sums=np.insert(self.sums, at, other.sums[new]),
            lengths=np.insert(self.lengths, at, other.lengths[new]),
        )

    def __getitem__(self, name: bytes) -> Entry:
        """Sum and length of one sequence; a KeyError where it is not there."""
        there, place = self.find([name])
        if not there[0]:
            raise KeyError(name)
        return float(self.sums[place[0]]), int(self.lengths[place[0]])

    def __iter__(self) -> Iterator[bytes]:
        """The digests, sorted."""
        return (row.tobytes() for row in _raw(self.names))

    def __len__(self) -> int:
        """Sequences."""
        return len(self.names)


def no_sums(dtype: torch.dtype = torch.float64) -> Sums:
    """Of no sequence."""
    return Sums.of([], torch.empty(0, dtype=dtype).numpy(), np.empty(0, dtype=np.int32))


def to_tensors(sums: Sums, dtype: torch.dtype | None = torch.float64) -> dict[str, Tensor]:
    """As tensors `digests` (N, 16), `sums` (N,) and `lengths` (N,), sorted by digest.

    Args:
        sums: What is kept.
        dtype: Of the sums; None leaves it.
    """
    return {
        "digests": torch.from_numpy(_raw(sums.names).copy()),
        "sums": torch.from_numpy(sums.sums.copy()).to(dtype),
        "lengths": torch.from_numpy(sums.lengths.copy()),
    }


def from_tensors(tensors: Mapping[str, Tensor]) -> Sums:
    """Inverse of `to_tensors`; shares the tensors' memory.

    Raises:
        ValueError: the tensors are of different lengths.
    """
    names = tensors["digests"].contiguous().numpy().reshape(-1).view(f"S{DIGEST}")
    sums = Sums(names=names, sums=tensors["sums"].numpy(), lengths=tensors["lengths"].numpy())
    if not len(sums.names) == len(sums.sums) == len(sums.lengths):
        raise ValueError("lists of different lengths")
    return sums


def _raw(names: NDArray[np.bytes_]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(names).view(np.uint8).reshape(-1, DIGEST)
