"""A manifest of a round: which files one process has finished, with the facts that prove each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nashtune.confined import is_plain
from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically

NEXT_STEP = "restore it from a copy, or start a new run with another --run_dir"


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Finished files by one manifest, with their facts; none where there is no manifest.

    Raises:
        InputError: it is no manifest.
    """
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        for file, facts in files.items():
            facts["sha256"]
            if not is_plain(file):
                raise ValueError(file)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is torn or was altered; {NEXT_STEP}") from error
    return dict(files)


def write_manifest(path: Path, files: Mapping[str, Any]) -> None:
    """Name finished files, all at once."""
    text = json.dumps({"files": dict(files)}, indent=2) + "\n"
    write_bytes_atomically(path, text.encode())
