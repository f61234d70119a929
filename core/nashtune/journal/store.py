"""The journal: what each round of a game has sampled, judged, paired and scored, as files that prove themselves.

JOURNAL/round-001/NAME.parquet       a table
JOURNAL/round-001/NAME.safetensors   tensors
JOURNAL/round-001/manifest.json      {"files": {file name: {"sha256", "rows"}}}

A file is written first and named in the manifest after, each at once or not at all and on the disk before the next
step, so a kill leaves either a finished file or one that the manifest does not name, which is written anew. Equal input
gives equal bytes with the same pyarrow and safetensors. One process writes; any number may read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from nashtune.errors import InputError, nearest
from nashtune.files import atomic_path, sha256_of, write_bytes_atomically

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
NEXT_STEP = "restore it from a copy, or start a new run with another --run_dir"


class Journal:
    """The rounds of one run.

    Args:
        folder: Where the rounds lie; made with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rounds(self) -> list[int]:
        """Rounds that have a finished file, in order."""
        return sorted(int(path.parent.name.removeprefix("round-")) for path in self.folder.glob(f"round-*/{MANIFEST}"))

    def names(self, round: int) -> list[str]:
        """What is finished in a round, in the order in which it was."""
        return [Path(file).stem for file in self._manifest(round)]

    def has(self, round: int, name: str) -> bool:
        """Whether a table or tensors of that name are finished."""
        return name in self.names(round)

    def write_table(self, round: int, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Finishes a table; what was finished under its name is replaced.

        Args:
            round: From 1.
            name: Without suffix.
            columns: Columns of one length. pyarrow's own arrays say their type; it guesses that of others.

        Raises:
            InputError: it cannot be written.
        """
        table = pa.table(dict(columns))
        self._finish(
            round, f"{name}.parquet", table.num_rows, lambda path: pq.write_table(table, path, compression="zstd")
        )

    def read_table(self, round: int, name: str) -> dict[str, list[Any]]:
        """Columns of a finished table.

        Raises:
            InputError: there is none of that name, or its file is missing or not what was written.
        """
        columns: dict[str, list[Any]] = pq.read_table(
            pa.BufferReader(self._bytes(round, f"{name}.parquet"))
        ).to_pydict()
        return columns

    def write_tensors(self, round: int, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Finishes tensors; what was finished under their name is replaced.

        Args:
            round: From 1.
            name: Without suffix.
            tensors: No two of them share memory.

        Raises:
            InputError: they cannot be written.
        """
        from safetensors.torch import save_file

        plain = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        rows = max((tensor.shape[0] for tensor in plain.values() if tensor.dim()), default=0)
        # no metadata: safetensors writes several of them in random order
        self._finish(round, f"{name}.safetensors", rows, lambda path: save_file(plain, path))

    def read_tensors(self, round: int, name: str) -> dict[str, Tensor]:
        """Finished tensors, on the CPU.

        Raises:
            InputError: there are none of that name, or their file is missing or not what was written.
        """
        from safetensors.torch import load

        tensors: dict[str, Tensor] = load(self._bytes(round, f"{name}.safetensors"))
        return tensors

    def _finish(self, round: int, file: str, rows: int, write: Callable[[Path], object]) -> None:
        path = self._round(round) / file
        files = self._manifest(round)
        try:
            if files.pop(file, None):
                self._write_manifest(round, files)  # between the two writes the old hash would accuse the new file
            with atomic_path(path) as partial:
                write(partial)
                digest = sha256_of(partial)
            self._write_manifest(round, {**files, file: {"sha256": digest, "rows": rows}})
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path} cannot be written ({error}); what was finished before is kept. Put that right and go on with: "
                f"nashtune fit --ckpt_path last --run_dir {self.folder.parent}"
            ) from error

    def _bytes(self, round: int, file: str) -> bytes:
        files = self._manifest(round)
        path = self._round(round) / file
        if file not in files:
            raise InputError(f"{path} is not in {path.with_name(MANIFEST)}{nearest(file, files)}")
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing, and {MANIFEST} beside it names it; {NEXT_STEP}") from error
        if hashlib.sha256(data).hexdigest() != files[file]["sha256"]:
            raise InputError(f"{path} is torn or was altered: its sha256 is not that in {MANIFEST}; {NEXT_STEP}")
        return data

    def _round(self, round: int) -> Path:
        return self.folder / f"round-{round:03d}"

    def _manifest(self, round: int) -> dict[str, dict[str, Any]]:
        """Finished files of a round."""
        path = self._round(round) / MANIFEST
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        try:
            files = json.loads(text)["files"]
            for facts in files.values():
                facts["sha256"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is torn or was altered; {NEXT_STEP}") from error
        return dict(files)

    def _write_manifest(self, round: int, files: Mapping[str, Any]) -> None:
        text = json.dumps({"files": dict(files)}, indent=2) + "\n"
        write_bytes_atomically(self._round(round) / MANIFEST, text.encode())
