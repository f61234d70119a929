"""Rows are checked by commands that must start at once."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "lightning", "transformers", "numpy", "pyarrow", "datasets"}


def test_reading_rows_imports_nothing_heavy(write) -> None:
    path = write(
        [
            {"prompt": "p", "chosen": "a", "rejected": "b"},
            {"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]},
        ]
    )
    code = (
        "import sys; from nashtune.data.rows import load_rows; import nashtune.data.sources\n"
        f"assert len(load_rows({path!r})) == 2; print(*sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "nashtune.data.parse" in out.split()
    assert {name.partition(".")[0] for name in out.split()} & HEAVY == set()
