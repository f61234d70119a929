"""The steps of "A plugin without a loss" on the page Extend make a plugin whose own tests pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from nashtune.cli.main import main

PAGES = Path(__file__).parents[2] / "docs" / "extend"
CHECK = 'check_spec(name, tmp_path, "--spec.oracle", "rules", "--spec.oracle.rules", "[\'regex:[a-zA-Z]\']")'


def change(file: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, lambda _: new, file.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert count == 1, pattern
    file.write_text(text, encoding="utf-8")


def test_an_oracle_and_a_spec_that_asks_it(tmp_path: Path, monkeypatch) -> None:
    page = (PAGES / "index.md").read_text(encoding="utf-8")
    steps = page.partition("### A plugin without a loss")[2].partition("\n## ")[0]
    [component, offered] = re.findall(r"`(Component\(.*?\)|OFFERED = \[\(.*?\)\])`", steps)
    [spec] = re.findall(r"    ```yaml\n(.*?)    ```", steps, re.DOTALL)
    [oracle] = re.findall(
        r'```python title="my_preference.py"\n(.*?)```', (PAGES / "oracle.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert CHECK in steps
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my-method"]) == 0
    folder = tmp_path / "my-method"
    package, test = folder / "my_method", folder / "tests" / "test_my_method.py"
    (package / "loss.py").unlink()
    shutil.rmtree(package / "specs" / "vectors")
    (package / "oracle.py").write_text(oracle, encoding="utf-8")
    (package / "specs" / "my_method.yaml").write_text(re.sub(r"^    ", "", spec, flags=re.MULTILINE), encoding="utf-8")
    change(package / "__init__.py", r"Component\(\n.*?\n        \)", component)
    change(test, r"OFFERED = \[.*?\n\]", offered)
    change(test, r"import torch\n", "")
    change(test, r"from my_method.loss import my_method_loss\n", "")
    change(test, r"\n\ndef test_no_pull.*", "")
    change(test, r"check_spec\(name, tmp_path\)", CHECK)
    info = folder / "my_method-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-method\nVersion: 0.1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[nashtune]\nmy_method = my_method\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NASHTUNE_STRICT_PLUGINS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
