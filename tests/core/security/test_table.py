"""The threat table of docs/security.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "security.md"
CELL = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = lines.index("| threat | what stands against it | test |")
    return [line for line in lines[begin + 2 : lines.index("", begin)]]


def test_every_row_names_a_test_that_exists() -> None:
    assert len(rows()) >= 20
    for row in rows():
        found = CELL.findall(row)
        assert found, f"no test: {row}"
        for file, name in found:
            functions = {
                node.name
                for node in ast.walk(ast.parse((ROOT / file).read_text()))
                if isinstance(node, ast.FunctionDef)
            }
            assert name in functions, f"{file} has no {name}"


def test_every_test_of_this_folder_is_in_a_row() -> None:
    named = set(CELL.findall("\n".join(rows())))
    files = {file for file, _ in named}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        assert path.name == "test_table.py" or str(path.relative_to(ROOT)) in files


def test_the_audit_does_not_pass_what_it_could_not_look_up() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile[makefile.index("\naudit:") :].split("\n\n")[0]
    assert "--strict" in recipe and "constraints.txt" in recipe
