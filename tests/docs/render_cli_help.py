"""Writes what each command's --help prints into docs/cli.md, between markers.

Run it after changing a command: `python tests/docs/render_cli_help.py`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from unittest import mock

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BLOCK = re.compile(r"<!-- help: (\w+) -->\n.*?<!-- /help -->", re.DOTALL)
COLUMNS = "100"


def printed(*arguments: str) -> str:
    """What a command prints on a terminal of 100 columns."""
    from nashtune.cli.main import main

    out = io.StringIO()
    settings = {"COLUMNS": COLUMNS, "LINES": "50", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    with mock.patch.dict(os.environ, settings), contextlib.redirect_stdout(out):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    if code:
        raise RuntimeError(f"nashtune {' '.join(arguments)} ended with {code}")
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def help_text(command: str) -> str:
    """A command's help; of the training command only the groups that are nashtune's own."""
    if command != "fit":
        return printed(command, "--help")
    groups = re.split(r"\n\n(?=\S)", printed("fit", "--spec", "dpo", "--help"))
    own = re.compile(r"^ +--(spec|data|policy|samples)\b", re.MULTILINE)
    return "\n\n".join(group for group in groups if own.search(group) and not group.startswith("usage:"))


def render(page: str) -> str:
    """The page with every block between markers written anew."""

    def block(found: re.Match[str]) -> str:
        return f"<!-- help: {found[1]} -->\n```text\n{help_text(found[1])}\n```\n<!-- /help -->"

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(render(text), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {len(BLOCK.findall(text))} commands\n")
