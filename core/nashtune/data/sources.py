"""Where rows come from: JSON lines, gzipped or not, parquet, and data sets by name. Importing this imports no torch.

A line that cannot be read is handed on as a problem of that line, so that the caller can say how many there are. What
spoils the whole file (missing, empty, cut off) is an error at once.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from nashtune.data.digests import known_sha256
from nashtune.errors import InputError, nearest

FORMATS = ".jsonl, .jsonl.gz or .parquet"
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
HUB = "hub:"  # data set by name, with the `hub` extra
SHIPPED = "demo:"  # among the data that nashtune ships


@dataclass(frozen=True)
class RawRow:
    """One row as found.

    Args:
        where: `file:line` (JSON lines), `file:row 3` (parquet and data sets by name), counted from 1.
        data: The row's columns, or None when it could not be read.
        problem: Why it could not be read.
    """

    where: str
    data: Mapping[str, Any] | None
    problem: str = ""


def read_source(source: str) -> Iterator[RawRow]:
    """Rows of a source, in order; nothing is kept in memory.

    Args:
        source: Path of a .jsonl, .jsonl.gz or .parquet file, `hub:owner/name[:split]`, or `demo:train`.

    Raises:
        InputError: no such file, unknown format, no row at all, gzip data cut off, broken parquet.
    """
    rows = _open(source)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{source}: no rows; the file is empty. Give {FORMATS} with one row per preference")
    yield first
    yield from rows


def source_digest(source: str) -> str:
    """sha256 of what a source holds at this moment, in hexadecimal: of its file, or of the files of a data set by name.

    Args:
        source: As for `read_source`.

    Raises:
        InputError: no such file, unknown format, or it cannot be read.
    """
    if not source.startswith(HUB):
        try:
            return known_sha256(_file(source))
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({error.strerror or error})") from error
    loaded = _load(source)
    total = hashlib.sha256(source.encode())  # the split, which may be a part of the files
    files = [Path(file["filename"]) for file in getattr(loaded, "cache_files", ())]
    for path in files:
        total.update(known_sha256(path).encode())
    if not files:  # made in memory
        for data in loaded:
            total.update(json.dumps(data, sort_keys=True, default=repr).encode())
    return total.hexdigest()


def source_format(source: str) -> str:
    """How a source is read: `.jsonl`, `.jsonl.gz`, `.parquet` or `hub:`; the same content may be good for one alone.

    Args:
        source: As for `read_source`.

    Raises:
        InputError: no such file, or unknown format.
    """
    if source.startswith(HUB):
        return HUB
    name = _file(source).name
    return next(suffix for suffix in SUFFIXES if name.endswith(suffix))


def _open(source: str) -> Iterator[RawRow]:
    if source.startswith(HUB):
        return _hub(source)
    path = _file(source)
    return _parquet(path, source) if path.suffix == ".parquet" else _json_lines(path, source)


def _file(source: str) -> Path:
    """The file of a source that is one, and has a known format."""
    path = _shipped(source) if source.startswith(SHIPPED) else Path(source).expanduser()
    if path.is_dir():
        raise InputError(f"{source}: is a folder; give one file, {FORMATS}")
    if not path.is_file():
        raise InputError(f"{source}: no such file{_neighbour(path)}")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{source}: unknown format '{path.suffix}'; rows are read from {FORMATS}")
    return path


def _shipped(source: str) -> Path:
    """`demo:train` is the file demo-train.jsonl that is installed with nashtune; its full name does as well."""
    folder = Path(str(resources.files("nashtune_specs"))) / "data"
    files = sorted(folder.glob("*.jsonl*")) if folder.is_dir() else []
    names = {name: path for path in files for name in (path.name, path.name.partition(".")[0].removeprefix("demo-"))}
    asked = source.removeprefix(SHIPPED)
    if asked not in names:
        raise InputError(f"{source}: no such shipped data{nearest(asked, names)}")
    return names[asked]


def _neighbour(path: Path) -> str:
    """The nearest data file of the same folder, for the end of a message."""
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    names = [p.name for p in path.parent.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz", ".parquet"))]
    return nearest(path.name, names) if names else f"; {path.parent} holds no data file ({FORMATS})"


def _json_lines(path: Path, source: str) -> Iterator[RawRow]:
    number = 0
    try:
        # Bytes, not text: a line with broken UTF-8 is then the problem of that line alone.
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(_lines(stream), start=1):
                if line.strip():
                    yield _parse(line.rstrip(b"\r\n"), f"{source}:{number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        if "Not a gzipped file" in str(error):
            raise InputError(f"{source}: is not gzip data; rename it to .jsonl if it is plain text") from error
        raise InputError(
            f"{source}:{number + 1}: the gzip data are cut off or damaged after line {number} ({error}); "
            "copy or download the file again, `gzip -t` tells whether it is whole"
        ) from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror or error})") from error


def _lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(stream):
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line


def _parse(line: bytes, where: str) -> RawRow:
    try:
        data = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        return RawRow(where, None, f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return RawRow(
            where, None, f"broken JSON at character {error.pos + 1}: {error.msg}; each line is one JSON object"
        )
    except _DuplicateKeyError as error:
        return RawRow(where, None, f"the key '{error}' is given twice; keep one")
    except RecursionError:
        return RawRow(where, None, "JSON nested too deeply to be a row")
    if not isinstance(data, dict):
        return RawRow(
            where, None, f"a JSON object was expected, found {type(data).__name__}; each line is one JSON object"
        )
    return RawRow(where, data)


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKeyError(next(name for name in names if names.count(name) > 1))
    return data


def _parquet(path: Path, source: str) -> Iterator[RawRow]:
    import pyarrow  # not at the top: the thin commands must not load it
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for data in batch.to_pylist():
                    number += 1
                    yield RawRow(f"{source}:row {number}", data)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{source}: broken parquet after row {number} ({reason}); write the file again") from error


def _hub(source: str) -> Iterator[RawRow]:
    for number, data in enumerate(_load(source), start=1):
        yield RawRow(f"{source}:row {number}", data)


def _load(source: str) -> Iterable[Mapping[str, Any]]:
    name, _, split = source.removeprefix(HUB).partition(":")
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"{source}: data sets by name need the package datasets; run `pip install 'nashtune[hub]'`, or give a "
            f"file ({FORMATS})"
        ) from error
    if not name:
        raise InputError(f"{source}: no name; write hub:owner/name or hub:owner/name:split")
    try:
        loaded: Iterable[Mapping[str, Any]] = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # the library raises many kinds: offline, no such set, no such split, script needed
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{source}: cannot be loaded ({reason}); check the name, the split and the network") from error
    return loaded
