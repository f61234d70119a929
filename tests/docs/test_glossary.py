"""Every name that a table or a log prints is in the glossary."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from nashtune.evaluation.vector_files import load_cases
from nashtune.evaluation.vectors import evaluate
from nashtune.spec.locate import find_spec, list_specs
from nashtune.spec.resolve import resolve

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "nashtune"
GAP = "…"
"""Stands for what is filled in."""

TABLES = {
    "cli/compare.py": ("PLANNED",),  # and those of nashtune.comparison
    "cli/controller.py": ("_print",),
    "cli/diff.py": (),
    "cli/frontier.py": ("_print",),
    "cli/import_report.py": ("print_import",),
    "cli/list.py": ("SPECS", "RUNS", "PIPELINES"),
    "cli/plugins.py": ("_print_table",),
    "cli/run.py": ("run",),
    "cli/verify_tables.py": ("print_report",),
    "cli/verify_bandit.py": ("_print",),
    "comparison/cost_table.py": ("cost_table",),
    "comparison/ratings.py": (),
    "comparison/tables.py": ("_ratings", "_moved", "_cycles"),
    "data/report.py": ("table",),
    "evaluation/held_out_rewards.py": ("table",),
    "evaluation/rate_table.py": ("matrix_table",),
    "evaluation/report.py": ("print_report",),
    "evaluation/reward_table.py": ("_score_rows", "_comparison_rows", "reward_table"),
    "evaluation/rounds_table.py": ("_game", "_rewards"),
    "evaluation/win_rates.py": (),
    "training/commands.py": ("evaluate",),
    "training/face_off.py": ("table",),
}
"""Module -> functions (or constants) with the labels of its tables; without one they are the user's own words."""
INNER = {"same", "lost"}
"""Words of the code at such a place that nobody sees."""
COUNTS = ("oracles",)
LOGGED = {"training/objective.py": "evaluate", "rounds/prepare.py": "_means"}
"""Module -> function whose keys are logged besides what losses and KL controllers report."""
OF_VECTORS = re.compile(r"(grad|mean)_|objective$|score$|advantage$|target_end$")
"""What a vector may expect and no log has."""


@cache
def entries() -> set[str]:
    """Names in backticks in the first column of the glossary's tables."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (.*?) \|", text.replace("\\|", "/"), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def function(file: str, name: str) -> ast.AST:
    """A function of a module, or the assignment of a constant."""
    for node in ast.walk(ast.parse((CORE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return node
    raise AssertionError(f"{file} has no {name} any more: say in TABLES where its labels are")


def text(node: ast.AST) -> str | None:
    """A string, with a gap for each value that is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
    return None


def labels(node: ast.AST) -> Iterator[str]:
    """Strings where a label can stand: in lists, first in tuples, keys, first arguments, subscripts that are set."""
    for one in ast.walk(node):
        found: list[ast.AST] = []
        match one:
            case ast.List(elts=elts):
                found = [*elts]
            case ast.Tuple(elts=[first, *_]):
                found = [first]
            case ast.Dict(keys=keys):
                found = [key for key in keys if key is not None]
            case ast.Call(func=ast.Name(id="Table" | "Printed"), args=args):
                found = [*args]
            case ast.Call(func=ast.Attribute(attr="add_column" | "add_row"), args=[first, *_]):
                found = [first]
            case ast.Subscript(slice=key, ctx=ast.Store()):
                found = [key]
        for part in found:
            label = (text(part) or "").strip()
            if label not in INNER and re.search(r"[^\W\d]", label.replace(GAP, "")) and not re.search(r"\.\w+$", label):
                yield label


def missing(names: set[str]) -> str:
    lacking = sorted(names - entries())
    return f"no entry in docs/glossary.md (in backticks, first column): {lacking}" if lacking else ""


def test_every_module_that_prints_a_table_is_looked_at():
    makes = re.compile(r"print_table\(|rich\.table import")
    printing = {
        file.relative_to(CORE).as_posix()
        for file in CORE.rglob("*.py")
        if makes.search(file.read_text(encoding="utf-8")) and file.name != "output.py"
    }
    assert not printing - set(TABLES), "say in TABLES which functions have the labels"


@pytest.mark.parametrize("file", [file for file, names in TABLES.items() if names])
def test_the_labels_of_tables_have_entries(file: str):
    found = {label for name in TABLES[file] for label in labels(function(file, name))}
    assert found, "no label was found: look at TABLES"
    assert not (said := missing(found)), f"{file}: {said}"


def columns(file: Path) -> Iterator[str]:
    """Names of columns in a module of the HTML pages, which call their list so."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Assign(targets=[ast.Name(id="columns")], value=ast.List() as value):
                yield from labels(value)
            case ast.AnnAssign(target=ast.Name(id="columns"), value=ast.List() as value):
                yield from labels(value)
            case ast.Call(
                func=ast.Attribute(attr="append", value=ast.Name(id="columns")), args=[ast.Constant() as one]
            ):
                yield str(one.value)


def test_the_columns_of_html_pages_have_entries():
    found = {label for file in (CORE / "html").glob("*.py") for label in columns(file)}
    assert {"Elo", "left out", "KL to ref, k1"} <= found
    assert not (said := missing(found)), said


def test_what_losses_and_controllers_report_has_entries():
    found: set[str] = set()
    for listed in list_specs():
        if listed.plugin == "builtin":
            file = find_spec(listed.name).parent / "vectors" / f"{listed.name}.json"  # type: ignore[union-attr]
            further = evaluate(resolve(listed.name), load_cases(file)[0]).further
            found |= {name for name in further if not OF_VECTORS.match(name)}
    assert {"beta", "log_ratio_margin", "clip_fraction", "z0"} <= found
    assert not (said := missing(found)), said


def test_what_runs_log_besides_has_entries():
    found = {label for file, name in LOGGED.items() for label in labels(function(file, name))}
    found = {label.replace(f"kl_{GAP}_", "kl_ref_") for label in found}
    assert {"kl_ref_k1", "reward_std", "kl_to_reference"} <= found
    assert not (said := missing(found)), said


def test_what_oracles_count_has_entries():
    sources = [file.read_text(encoding="utf-8") for kind in COUNTS for file in (CORE / kind).rglob("*.py")]
    counted = re.compile(r"""(?:counts\[|self\.count\(|client\.count\()["'](\w+)["']""")
    found = {name for source in sources for name in counted.findall(source)}
    assert {"position_decides", "unparsed", "scored"} <= found
    assert not (said := missing(found)), said


def test_no_entry_is_made_twice_in_a_table_of_words():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| \*\*(.+?)\*\*", text, re.MULTILINE)
    assert len(words) == len(set(words)) > 60
