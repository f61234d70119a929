"""One sha256 for several files of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from nashtune.data.digests import known_sha256


def digest_of(files: Iterable[Path]) -> str:
    """sha256 over the names and contents of files; one that was not touched since the last time is not read again.

    Args:
        files: In an order that is always the same.
    """
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode())
        total.update(bytes.fromhex(known_sha256(file)))
    return total.hexdigest()
