"""The snapshot bank: weights of the policy under names, on disk.

FOLDER/main@3.safetensors   what is trained, as `HFPolicy.trainable_state_dict` names it: with LoRA the adapter alone
FOLDER/snapshots.json       {name: {"file", "sha256"}}

A file is written first and named after, so a kill leaves either a whole snapshot or none. Among data-parallel
processes rank 0 writes and the others wait; any number may read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nashtune.confined import inside
from nashtune.errors import InputError, nearest
from nashtune.files import atomic_path, sha256_of, write_bytes_atomically
from nashtune.models.policy import HFPolicy
from nashtune.ranks import rank, together

INDEX = "snapshots.json"
LIVE = "live"  # what an average calls the live weights: no snapshot has that name
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")
NEXT_STEP = "restore it from a copy, or start a new run with another --run_dir"


class SnapshotBank:
    """Named weights of one policy.

    Args:
        folder: Where they lie; made with the first snapshot.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Every snapshot, in the order in which they were made."""
        return list(self._index())

    def has(self, name: str) -> bool:
        """Whether there is a snapshot of that name."""
        return name in self._index()

    def save(self, name: str, policy: HFPolicy) -> None:
        """Keeps the policy's weights; a snapshot of that name is replaced. Every rank calls it.

        Args:
            name: Letters, digits and `_.@-`, such as `main@3`; not `live`.
            policy: Loaded.

        Raises:
            InputError: the file cannot be written.
        """
        weights = policy.trainable_state_dict()
        with together(f"snapshot {name}"):
            if rank() == 0:
                self._write(name, weights)

    def load(self, name: str, policy: HFPolicy) -> None:
        """Gives the policy the weights of a snapshot, in place and in the policy's own precision.

        Raises:
            InputError: there is no such snapshot, its file is missing or not what was written, or it belongs to another
                policy.
        """
        file = self._verified(name)
        try:
            weights = load_file(file)
        except SafetensorError as error:  # its sha256 is right
            raise InputError(f"{file} was altered: it holds no weights; {NEXT_STEP}") from error
        if numbers := [key for key, weight in weights.items() if not weight.is_floating_point()]:
            raise InputError(f"{file} was altered: {numbers[0]} is {weights[numbers[0]].dtype}; {NEXT_STEP}")
        try:
            policy.load_trainable_state_dict(weights)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error

    def _write(self, name: str, weights: Mapping[str, Tensor]) -> None:
        if not NAME.fullmatch(name) or name == LIVE:
            raise ValueError(f"{name!r} is no name of a snapshot: use letters, digits and _.@- (and not '{LIVE}')")
        file = self._file(name)
        plain = {key: weight.contiguous() for key, weight in weights.items()}
        index = self._index()
        try:
            if index.pop(name, None):
                self._write_index(index)  # between the two writes the old hash would accuse the new file
            with atomic_path(file) as partial:
                save_file(plain, partial)
                digest = sha256_of(partial)
            self._write_index({**index, name: {"file": file.name, "sha256": digest}})
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{file} cannot be written ({error}); other snapshots are kept. Put that right and go on with: "
                f"nashtune fit --ckpt_path last --run_dir {self.folder.parent}"
            ) from error

    def _verified(self, name: str) -> Path:
        expected = self._facts(name)["sha256"]
        file = inside(self.folder, f"{name}.safetensors", self.folder / INDEX)
        if not file.is_file():
            raise InputError(f"{file} is missing, and {INDEX} beside it names it; {NEXT_STEP}")
        if sha256_of(file) != expected:
            raise InputError(f"{file} is torn or was altered: its sha256 is not that in {INDEX}; {NEXT_STEP}")
        return file

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _facts(self, name: str) -> dict[str, str]:
        index = self._index()
        if name not in index:
            raise InputError(f"{self.folder}: there is no snapshot '{name}'{nearest(name, index)}")
        return index[name]

    def _index(self) -> dict[str, dict[str, str]]:
        path = self.folder / INDEX
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            for name, facts in index.items():
                facts["sha256"]
                if not NAME.fullmatch(name):
                    raise ValueError(name)
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is torn or was altered; {NEXT_STEP}") from error
        return dict(index)

    def _write_index(self, index: Mapping[str, Any]) -> None:
        write_bytes_atomically(self.folder / INDEX, (json.dumps(dict(index), indent=2) + "\n").encode())
