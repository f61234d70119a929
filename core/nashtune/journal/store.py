"""The journal: what each round of a game has sampled, judged, paired and scored, as files that prove themselves.

JOURNAL/round-001/NAME.parquet       a table
JOURNAL/round-001/NAME.safetensors   tensors
JOURNAL/round-001/manifest.json      {"files": {file name: {"sha256", "bytes", "rows"}}}
JOURNAL/round-001/manifest-0001.json the same, of what data-parallel process 1 has written

A file is written first and named in a manifest after, each at once or not at all and on the disk before the next step,
so a kill leaves either a finished file or one that no manifest names, which is written anew. Equal input gives equal
bytes with the same pyarrow and safetensors. Each manifest has one writer, and each file is named in one of them; any
number of processes may read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from nashtune.confined import inside
from nashtune.errors import InputError, nearest
from nashtune.files import atomic_path, sha256_of
from nashtune.journal.content import columns_of, rows_of, tensors_of
from nashtune.journal.manifest import NEXT_STEP, read_manifest, write_manifest

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
MANIFESTS = "manifest*.json"


class Journal:
    """The rounds of one run.

    Args:
        folder: Where the rounds lie; made with the first file.
        writer: Number of this process among those that write, from 0.
    """

    def __init__(self, folder: Path, *, writer: int = 0) -> None:
        self.folder = folder
        self._own = f"manifest-{writer:04d}.json" if writer else MANIFEST

    def rounds(self) -> list[int]:
        """Rounds that have a finished file, in order.

        Raises:
            InputError: a folder is called like a round and is none, such as a copy of one.
        """
        return sorted({self._number(path.parent) for path in self.folder.glob(f"round-*/{MANIFESTS}")})

    def names(self, round: int) -> list[str]:
        """What is finished in a round, in the order in which it was; one process after another."""
        return [Path(file).stem for file in self._files(round)]

    def manifests(self, round: int) -> dict[str, str]:
        """Name of the manifest, and so the process, that has finished each name of a round."""
        return {Path(file).stem: manifest for file, (_, manifest) in self._files(round).items()}

    def has(self, round: int, name: str) -> bool:
        """Whether a table or tensors of that name are finished."""
        return name in self.names(round)

    def check(self) -> None:
        """Look whether every finished file is there in its size, before work begins that needs it later.

        Raises:
            InputError: one is missing or torn. One that was altered in its size is found when it is read.
        """
        for round in self.rounds():
            for path in sorted(self._round(round).glob(MANIFESTS)):
                for file, facts in read_manifest(path).items():
                    found = self._at(round, file, path.name)
                    try:
                        size = found.stat().st_size
                    except FileNotFoundError as error:
                        raise self._missing(round, file, path.name) from error
                    if size != facts.get("bytes", size):  # of an older journal no sizes are known
                        raise self._torn(round, file, path.name)

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

    def read_table(self, round: int, name: str, types: Mapping[str, Any] | None = None) -> dict[str, list[Any]]:
        """Columns of a finished table.

        Args:
            round: From 1.
            name: Without suffix.
            types: The columns that it must have, and their types in pyarrow; None takes any.

        Raises:
            InputError: there is none of that name, or its file is missing or not what was written.
        """
        file = f"{name}.parquet"
        data, rows = self._bytes(round, file)
        try:
            return columns_of(data, types, rows)
        except ValueError as error:
            path = self._round(round) / file
            raise InputError(
                f"{path} is not the table that belongs here: it was altered, {error}; {NEXT_STEP}"
            ) from error

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
        # no metadata: safetensors writes several of them in random order
        self._finish(round, f"{name}.safetensors", rows_of(plain), lambda path: save_file(plain, path))

    def read_tensors(self, round: int, name: str) -> dict[str, Tensor]:
        """Finished tensors, on the CPU.

        Raises:
            InputError: there are none of that name, or their file is missing or not what was written.
        """
        file = f"{name}.safetensors"
        data, rows = self._bytes(round, file)
        try:
            return tensors_of(data, rows)
        except SafetensorError as error:
            raise InputError(f"{self._round(round) / file} holds no tensors: it was altered; {NEXT_STEP}") from error
        except ValueError as error:
            raise self.altered(round, file, str(error)) from error

    def altered(self, round: int, file: str, why: str) -> InputError:
        """The error that refuses a file whose sha256 is right and whose content cannot be."""
        return InputError(f"{self._round(round) / file} was altered: {why}; {NEXT_STEP}")

    def _finish(self, round: int, file: str, rows: int, write: Callable[[Path], object]) -> None:
        path = self._round(round) / file
        files = read_manifest(path.with_name(self._own))
        try:
            if files.pop(file, None):
                self._write_manifest(round, files)  # between the two writes the old hash would accuse the new file
            with atomic_path(path) as partial:
                write(partial)
                facts = {"sha256": sha256_of(partial), "bytes": partial.stat().st_size, "rows": rows}
            self._write_manifest(round, {**files, file: facts})
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path} cannot be written ({error}); what was finished before is kept. Put that right and give the "
                f"command again (for a run: nashtune fit --ckpt_path last --run_dir {self.folder.parent})"
            ) from error

    def _bytes(self, round: int, file: str) -> tuple[bytes, object]:
        """A finished file, and how many rows its manifest says; None where it does not say."""
        files = self._files(round)
        path = self._round(round) / file
        if file not in files:
            raise InputError(f"{path} is not in {path.with_name(MANIFEST)}{nearest(file, files)}")
        facts, manifest = files[file]
        try:
            data = self._at(round, file, manifest).read_bytes()
        except FileNotFoundError as error:
            raise self._missing(round, file, manifest) from error
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise self._torn(round, file, manifest)
        return data, facts.get("rows")

    def _at(self, round: int, file: str, manifest: str) -> Path:
        return inside(self.folder, f"{self._round(round).name}/{file}", manifest)

    def _missing(self, round: int, file: str, manifest: str) -> InputError:
        path = self._round(round) / file
        return InputError(f"{path} is missing, and {manifest} beside it names it; {NEXT_STEP}")

    def _torn(self, round: int, file: str, manifest: str) -> InputError:
        path = self._round(round) / file
        return InputError(f"{path} is torn or was altered: it is not what {manifest} beside it says; {NEXT_STEP}")

    def _number(self, folder: Path) -> int:
        digits = folder.name.removeprefix("round-")
        if not (digits.isascii() and digits.isdecimal()) or folder != self._round(int(digits)):
            raise InputError(
                f"{folder} is no round of this journal: its rounds are called round-001, round-002 and so on; move it "
                "away"
            )
        return int(digits)

    def _round(self, round: int) -> Path:
        return self.folder / f"round-{round:03d}"

    def _files(self, round: int) -> dict[str, tuple[dict[str, Any], str]]:
        """Finished files of a round: their facts, and the manifest that names them."""
        found: dict[str, tuple[dict[str, Any], str]] = {}
        for path in sorted(self._round(round).glob(MANIFESTS), key=lambda path: path.stem):
            for file, facts in read_manifest(path).items():
                if file in found:
                    raise InputError(f"{path} names {file}, and so does {found[file][1]} beside it; {NEXT_STEP}")
                found[file] = facts, path.name
        return found

    def _write_manifest(self, round: int, files: Mapping[str, Any]) -> None:
        write_manifest(self._round(round) / self._own, files)
