"""sha256 of files, remembered: a file that was not touched since is not read again. Importing this imports no torch."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from nashtune.cache import cache_root
from nashtune.files import atomic_path, sha256_of

SETTLED = 2.0  # seconds; a younger file may change again within the resolution of its time stamps


def known_sha256(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal.

    It is remembered with the file's size, inode and times of change (in nanoseconds; one of them is the system's own,
    and no program can set it back). Any write to the file changes one of these.

    Raises:
        OSError: the file cannot be read.
    """
    before = _stamp(path)
    with suppress(OSError, ValueError, KeyError, TypeError):
        memory = json.loads(_memory(path).read_text())
        if memory["stamp"] == before:
            return str(memory["sha256"])
    digest = sha256_of(path)
    changed = max(path.stat().st_mtime, path.stat().st_ctime)
    if _stamp(path) == before and time.time() - changed > SETTLED:
        remember(path, digest)
    return digest


def remember(path: Path, digest: str) -> None:
    """Note the sha256 of a file that nobody will change."""
    with suppress(OSError):  # a cache that cannot be written to costs time at the next start, and nothing else
        with atomic_path(_memory(path), shared=True) as partial:
            partial.write_text(json.dumps({"path": str(path.resolve()), "stamp": _stamp(path), "sha256": digest}))


def forget(path: Path) -> None:
    """Drop what is remembered of a file that is gone."""
    with suppress(OSError):
        _memory(path).unlink(missing_ok=True)


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _memory(path: Path) -> Path:
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_root() / "digests" / f"{name}.json"
