"""Token rows that are kept between runs: made once for each content of a source and each way to read it.

A file of rows has the name KEY-SHA256.arrow: KEY stands for everything that the rows depend on, SHA256 is that of the
file. A file whose content is another is never read. When KEY was used last is the time of KEY.lock: that of the rows
themselves must stay, because it tells that they are as they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from filelock import FileLock

from nashtune.cache import cache_root
from nashtune.data.digests import forget, known_sha256, remember
from nashtune.data.report import TokenisationReport
from nashtune.data.row_file import RowWriter, TokenRows
from nashtune.data.tokenise import TokenRow
from nashtune.errors import InputError
from nashtune.files import atomic_path, sha256_of
from nashtune.notes import note

UNUSED = 60 * 24 * 3600.0
"""Seconds after which a file that no run has used is removed."""
Make = Callable[[Callable[[Sequence[TokenRow]], Any]], TokenisationReport]
"""Reads and encodes all rows, hands them on a few at a time, and says what became of them."""


def kept_rows(settings: Mapping[str, Any], source: str, split: str, make: Make) -> tuple[TokenRows, TokenisationReport]:
    """The rows of a source, from the cache where they are in it.

    Runs that start at once make them once: the others wait. Where the cache cannot be written to, a line says so and
    the rows are in a temporary folder that lives as long as they do.

    Args:
        settings: Everything that the rows depend on, the digests of source and tokenizer among it; plain values.
        source: As the user gave it; the rows' places begin with it.
        split: Its name, for the report.
        make: Makes the rows.

    Raises:
        InputError: what `make` found to be wrong; the source fails in the middle; or there is no place to write to.
    """
    key = hashlib.sha256(json.dumps({**settings, "code": _code()}, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_root() / "rows"
    rows = _find(folder, key, source)
    if rows is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{key}.lock"):
                rows = _find(folder, key, source) or _make(folder, key, source, make)
                _remove_unused(folder, key)
        except OSError as error:
            note(
                f"tokenised rows cannot be kept in {folder} ({error.strerror or error}), so that every run makes "
                "them anew; set NASHTUNE_CACHE to a folder that can be written to"
            )
            rows = _temporary(key, source, make)
    with suppress(OSError):  # another user's, or read-only
        (folder / f"{key}.lock").touch()
    return rows, replace(TokenisationReport.from_dict(rows.facts), split=split, source=source)


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 of all that a tokenizer would save, as it is now: its files, changed or not since they were read.

    How the last call padded and cut is saved too, and is no part of it. A chat template that writes the date is another
    one tomorrow.
    """
    total = hashlib.sha256(type(tokenizer).__name__.encode())
    with TemporaryDirectory(prefix="nashtune-tokenizer-") as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            name = str(path.relative_to(folder))
            content = _without_last_call(path) if name == "tokenizer.json" else path.read_bytes()
            total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    if "strftime_now" in str(tokenizer.chat_template):
        total.update(date.today().isoformat().encode())
    return total.hexdigest()


def _without_last_call(path: Path) -> bytes:
    saved = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps({name: value for name, value in saved.items() if name not in ("padding", "truncation")}).encode()


@cache
def _code() -> str:
    """sha256 of the code that makes rows: this package and the libraries that it calls."""
    here = Path(__file__).parent
    total = hashlib.sha256()
    for path in (*sorted(here.glob("*.py")), here.parent / "pairing" / "scores.py"):
        total.update(f"{path.name}\0{sha256_of(path)}\n".encode())
    for library in ("transformers", "tokenizers", "jinja2"):
        total.update(f"{library} {version(library)}\n".encode())
    return total.hexdigest()


def _find(folder: Path, key: str, source: str) -> TokenRows | None:
    """The rows of a key; None where they are not there, or broken."""
    for path in sorted(folder.glob(f"{key}-*.arrow")):
        try:
            if known_sha256(path) != path.stem.partition("-")[2]:
                raise ValueError("its content is not what was written")
            rows = TokenRows(path, source)
            TokenisationReport.from_dict(rows.facts)
        except FileNotFoundError:
            continue  # another run has taken it away
        except (OSError, ValueError, KeyError, TypeError) as error:
            note(f"{path} is broken ({error}); the rows are tokenised again")
            path.unlink(missing_ok=True)
            continue
        return rows
    return None


def _make(folder: Path, key: str, source: str, make: Make) -> TokenRows:
    unnamed = folder / f"{key}.new"
    with atomic_path(unnamed, shared=True) as partial:
        with RowWriter(partial, source) as writer:
            report = _made(make, writer, source)
            writer.close_with(report.as_dict())
        digest = sha256_of(partial)
    path = folder / f"{key}-{digest}.arrow"
    os.replace(unnamed, path)
    remember(path, digest)
    return TokenRows(path, source)


def _made(make: Make, writer: RowWriter, source: str) -> TokenisationReport:
    """What `make` reports. Only the writer's OSErrors leave as such: a source that cannot be read is no full disk."""
    unwritten: list[OSError] = []

    def keep(rows: Sequence[TokenRow]) -> None:
        try:
            writer.add(rows)
        except OSError as error:
            unwritten.append(error)
            raise

    try:
        return make(keep)
    except OSError as error:
        if unwritten:
            raise
        raise InputError(f"{source}: cannot be read to its end ({error.strerror or error})") from error


def _remove_unused(folder: Path, key: str) -> None:
    """Files of other keys that no run has used for a long time, and what a killed run has left behind."""
    oldest = time.time() - UNUSED
    for path in (*folder.glob("*.arrow"), *folder.glob("*.lock"), *folder.glob(".*.partial")):
        lock = folder / f"{path.stem.partition('-')[0]}.lock"
        with suppress(OSError):  # another run removes it too, or it is another user's
            used = max(path.stat().st_mtime, lock.stat().st_mtime if lock.exists() else 0.0)
            if used < oldest and lock.stem != key:
                path.unlink()
                forget(path)


def _temporary(key: str, source: str, make: Make) -> TokenRows:
    try:
        folder = Path(mkdtemp(prefix="nashtune-rows-"))
        try:
            rows = _make(folder, key, source, make)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise InputError(
            f"{source}: the tokenised rows cannot be written anywhere ({error}); make room, or set NASHTUNE_CACHE (or "
            "TMPDIR) to a folder that can be written to"
        ) from error
    weakref.finalize(rows, shutil.rmtree, folder, ignore_errors=True)
    return rows
