"""Reads the JSON object of a `--game` file; what its keys hold is the readers' business."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nashtune.errors import InputError, nearest


def read_object(source: str, *, expected: str, keys: Sequence[str], what: str) -> tuple[Path, dict[str, Any]]:
    """A file's object, with no key that nothing reads.

    Args:
        source: Path, as the user gave it.
        expected: What the object must hold, for messages.
        keys: Every key that is read.
        what: What the file describes, for messages: "a bandit".

    Raises:
        InputError: no such file, no JSON, no object, or an unknown key.
    """
    file = Path(source).expanduser()
    if not file.is_file():
        raise InputError(f"--game {source}: no such file")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: expected an object with {expected}, found {type(found).__name__}")
    for key in found:
        if key not in keys:
            raise InputError(f"{file}: '{key}' is not a key of {what}{nearest(str(key), keys)}")
    return file, found
