"""How long the parts of a comparison took, over all of its attempts. Imports no torch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nashtune.files import write_bytes_atomically

FILE = "seconds.json"


class Clock:
    """Adds up seconds in a file, which an attempt that is killed leaves as its last whole part had it.

    Args:
        folder: Of the comparison.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "journal" / FILE

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is done here as a part of that name."""
        began = time.monotonic()
        try:
            yield
        finally:
            total = self.seconds()
            total[name] = total.get(name, 0.0) + time.monotonic() - began
            write_bytes_atomically(self._file, json.dumps(total).encode())

    def seconds(self) -> dict[str, float]:
        """Of each part so far; a file that is gone or torn begins anew, as nothing rests on it."""
        with suppress(FileNotFoundError, ValueError):
            return {name: float(value) for name, value in json.loads(self._file.read_text(encoding="utf-8")).items()}
        return {}
