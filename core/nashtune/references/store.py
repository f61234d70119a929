"""Log-prob sums on disk, found by the content of a sequence.

A sum belongs to the exact token ids and completion mask of a sequence, not to a row number: rows of different splits
cannot be mistaken for each other, and changed data is a missing entry and never a wrong number.

Legend: N = sequences, T = positions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nashtune.errors import InputError
from nashtune.files import atomic_path
from nashtune.interfaces.batch import TokenBatch

FORMAT = "1"
Entry = tuple[float, int]  # sum in nats, completion tokens


def digests(batch: TokenBatch) -> list[bytes]:
    """16 bytes for each sequence: of its token ids and completion mask, padding apart."""
    real = batch.attention_mask.bool().cpu()
    ids, scored = batch.input_ids.cpu(), batch.completion_mask.bool().cpu()
    return [
        hashlib.blake2b(
            ids[i][real[i]].to(torch.int64).numpy().tobytes() + scored[i][real[i]].numpy().tobytes(), digest_size=16
        ).digest()
        for i in range(real.shape[0])
    ]


def file_digest(files: Iterable[Path]) -> str:
    """sha256 over the names and contents of files."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def key_of(parts: Mapping[str, str]) -> str:
    """A file name for everything the numbers depend on."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()[:32]


def to_tensors(entries: Mapping[bytes, Entry], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Entries as tensors `digests` (N, 16), `sums` (N,) and `lengths` (N,), sorted by digest."""
    names = sorted(entries)
    return {
        "digests": torch.tensor([list(name) for name in names], dtype=torch.uint8).reshape(len(names), 16),
        "sums": torch.tensor([entries[name][0] for name in names], dtype=dtype),
        "lengths": torch.tensor([entries[name][1] for name in names], dtype=torch.int32),
    }


def from_tensors(tensors: Mapping[str, Tensor]) -> dict[bytes, Entry]:
    """Inverse of `to_tensors`.

    Raises:
        ValueError: the tensors are of different lengths.
    """
    names = [bytes(row) for row in tensors["digests"].tolist()]
    return dict(zip(names, zip(tensors["sums"].tolist(), tensors["lengths"].tolist(), strict=True), strict=True))


def write(file: Path, entries: Mapping[bytes, Entry], parts: Mapping[str, str], dtype: torch.dtype) -> None:
    """Writes a cache file at once or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with atomic_path(file, shared=True) as partial:
            save_file(to_tensors(entries, dtype), partial, metadata={"format": FORMAT, **parts})
    except (OSError, SafetensorError) as error:
        raise InputError(f"reference cache: {file} cannot be written: {error}") from error


def read(file: Path, parts: Mapping[str, str]) -> dict[bytes, Entry]:
    """Entries of a cache file.

    Raises:
        InputError: it is broken or was made for something else.
    """
    try:
        with safe_open(str(file), framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in ("digests", "sums", "lengths")}
    except (OSError, SafetensorError) as error:
        raise InputError(f"reference cache: {file} is broken ({error}); delete it and run again") from error
    different = [name for name, value in {"format": FORMAT, **parts}.items() if metadata.get(name) != value]
    sizes = {tensor.shape[0] for tensor in tensors.values()}
    if different or len(sizes) != 1:
        what = f"was made with another {', '.join(different)}" if different else "holds lists of different lengths"
        raise InputError(f"reference cache: {file} {what}; delete it and run again")
    return from_tensors(tensors)
