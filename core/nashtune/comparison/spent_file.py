"""What a training has spent, as its run folder keeps it. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "spent.json"
"""In the run folder, as of the newest checkpoint: {"steps", "tokens", "other_tokens", "positions", "padding",
"seconds", "wall_seconds", "lr_share"}."""


def read_spent(run: Path) -> dict[str, Any]:
    """What a finished run of a comparison has spent."""
    found: dict[str, Any] = json.loads((run / FILE).read_text(encoding="utf-8"))
    return found
