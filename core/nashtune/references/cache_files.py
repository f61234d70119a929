"""Log-prob sums on disk: the cache files of the reference `cached`, whole ones and parts of one that is being made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nashtune.errors import InputError
from nashtune.files import atomic_path
from nashtune.references.store import DIGEST, Sums, from_tensors, no_sums, to_tensors

FORMAT = "2"


def key_of(parts: Mapping[str, str]) -> str:
    """A file name for everything the numbers depend on."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()[:32]


def write(file: Path, sums: Sums, parts: Mapping[str, str]) -> None:
    """Writes a cache file at once or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with atomic_path(file, shared=True) as partial:
            save_file(to_tensors(sums, None), partial, metadata={"format": FORMAT, **parts})
    except (OSError, SafetensorError) as error:
        raise InputError(f"reference cache: {file} cannot be written: {error}") from error


def read(file: Path, parts: Mapping[str, str]) -> Sums:
    """The sums of a cache file, mapped into memory: only what is looked up is read.

    Raises:
        InputError: it is broken or was made for something else.
    """
    try:
        with safe_open(str(file), framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in ("digests", "sums", "lengths")}
        sums = from_tensors(tensors)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"reference cache: {file} is broken ({error}); delete it and run again") from error
    different = [name for name, value in {"format": FORMAT, **parts}.items() if metadata.get(name) != value]
    if different:
        raise InputError(
            f"reference cache: {file} was made with another {', '.join(different)}; delete it and run again"
        )
    return sums


class PartFiles:
    """What is scored so far of a file that is not finished: a run that was killed goes on from there.

    Args:
        file: The file that will be whole.
        parts: Everything its numbers depend on.

    Attributes:
        pattern: Of all of their names.
    """

    def __init__(self, file: Path, parts: Mapping[str, str]) -> None:
        self.pattern = file.with_name(f"{file.stem}.*.part")
        self._parts = parts

    def read(self, dtype: torch.dtype) -> Sums:
        """Everything that any process has kept.

        Raises:
            InputError: a part is broken or was made for something else.
        """
        found = no_sums(dtype)
        for part in sorted(self._all()):
            try:
                found = found.merged(read(part, self._parts))
            except InputError:
                if part.exists():
                    raise
                # another run has finished the file at this moment and removed its parts: they are scored again
        return found

    def keep(self, sums: Sums) -> None:
        """One part, named after the sequences in it: no process, and no later run, writes others over it.

        Raises:
            InputError: it cannot be written.
        """
        name = hashlib.blake2b(sums.names.tobytes(), digest_size=DIGEST).hexdigest()
        write(self.pattern.with_name(self.pattern.name.replace("*", name)), sums, self._parts)

    def remove(self) -> None:
        """All of them, of all processes: the file is whole."""
        for part in self._all():
            part.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        return list(self.pattern.parent.glob(self.pattern.name))
