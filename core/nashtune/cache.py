"""Where nashtune keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """For what can be made again: `$NASHTUNE_CACHE`, else `$XDG_CACHE_HOME/nashtune`, else `~/.cache/nashtune`."""
    if chosen := os.environ.get("NASHTUNE_CACHE"):
        return Path(chosen).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "nashtune"
