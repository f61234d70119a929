from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "ratings.md"


def test_the_example_prints_what_the_page_says(tmp_path: Path):
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(r'```python title="(\w+\.py)"\n(.*?)```.*?```text\n(.*?)```', text, re.DOTALL)
    assert found
    name, code, printed = found.groups()
    (tmp_path / name).write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == printed
