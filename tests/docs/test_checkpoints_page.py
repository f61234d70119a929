"""The table of faults names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_fault_has_its_test() -> None:
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w./]+)(?:::(\w+))?`", page)
    assert len(named) > 12
    for path, function in named:
        assert (ROOT / path).exists(), path
        if function:
            assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), function
