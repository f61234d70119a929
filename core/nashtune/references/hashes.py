"""sha256 of model files, computed once for each state of a file.

Reading a model of 3 GB only to name it takes seconds at every start. The hash of a file is kept beside the cache and
found by its path, size, inode and times; the time of the last status change cannot be set back by a copy or `touch`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from nashtune.files import sha256_of, write_bytes_atomically

SETTLED = 2.0
"""Seconds: a file that was touched later than this ago may change once more within one tick of its clock, so its hash
is not kept."""


def digest_of(files: Iterable[Path], kept: Path) -> str:
    """sha256 over the names and contents of files.

    Args:
        files: In an order that is always the same.
        kept: Folder for the hashes of single files.
    """
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode())
        total.update(bytes.fromhex(_sha256(file.resolve(), kept)))
    return total.hexdigest()


def _sha256(file: Path, kept: Path) -> str:
    state = _state(file)
    note = kept / f"{hashlib.sha256(str(file).encode()).hexdigest()[:32]}.json"
    try:
        known = json.loads(note.read_text())
        if known["state"] == state:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or not whole: it is made again
        pass
    found = sha256_of(file)
    changed = max(file.stat().st_mtime, file.stat().st_ctime)
    if _state(file) == state and time.time() - changed > SETTLED:
        write_bytes_atomically(note, json.dumps({"file": str(file), "state": state, "sha256": found}).encode())
    return found


def _state(file: Path) -> list[int]:
    about = file.stat()
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev]
