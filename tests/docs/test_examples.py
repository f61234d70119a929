"""The code in the guides is run as a reader would run it: written into files, then the commands that the page shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lab import pair_rows, write_rows
from nashtune.data.parse import parse_row

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'^( *)```\w+ title="([^"]+)"[^\n]*\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)

ROW = re.compile(r"^### (\w+)\n(?:(?!^#)[^\n]*\n)*?```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^( *)```console\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def files_of(page: str) -> dict[str, str]:
    """Titled blocks of a page: file name to text; blocks of one title follow one another in the same file."""
    files: dict[str, str] = {}
    for _, title, body in FENCE.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        text = textwrap.dedent(body)
        files[title] = f"{files[title]}\n\n{text}" if title in files else text
    return files


def sessions(page: str) -> list[tuple[str, list[str]]]:
    """(command, lines it prints) of the page's console blocks."""
    found: list[tuple[str, list[str]]] = []
    for _, block in CONSOLE.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        for line in textwrap.dedent(block).splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif line:
                found[-1][1].append(line)
    return found


def write(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class Reader:
    """Runs commands in a folder, with some folders ahead of the installed packages."""

    def __init__(self, folder: Path, *ahead: Path) -> None:
        self.folder = folder
        self.environ = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, ahead)), COLUMNS="200")
        self.environ.pop("NASHTUNE_BLOCK", None)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )

    def nashtune(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from nashtune.cli.main import main; sys.exit(main(sys.argv[1:]))"
        return self.run("-c", code, *arguments)

    def shows(self, command: str, lines: list[str]) -> None:
        """The command prints exactly these lines, in this order."""
        done = self.nashtune(*shlex.split(command)[1:])
        assert (done.stdout + done.stderr).split("\n")[:-1] == lines, command

    def succeeds(self, *arguments: str) -> str:
        done = self.nashtune(*arguments)
        assert done.returncode == 0, f"nashtune {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Reader:
    """A copy of the parts of the repository that a method adds to, with the new method's files written into it."""
    for name in ("plugins", "specs", "tests", "docs", "pyproject.toml", ".mkdocs.yml"):
        place = ROOT / name
        skip = shutil.ignore_patterns("__pycache__", "packaging", "benchmarks")
        if place.is_dir():
            shutil.copytree(place, tmp_path / name, ignore=skip)
        else:
            shutil.copy(place, tmp_path / name)
    (tmp_path / "core").symlink_to(ROOT / "core")
    write(files_of("add-a-method.md"), tmp_path)
    return Reader(tmp_path, tmp_path / "plugins", tmp_path / "specs")


def test_add_a_method_copies_files_that_exist():
    page = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    copied = re.findall(r"^ *cp (\S+) (\S+)$", page, re.MULTILINE)
    assert [new for _, new in copied] == sorted(files_of("add-a-method.md"), key=[new for _, new in copied].index)
    for old, new in copied:
        assert (ROOT / old).is_file(), old
        assert not (ROOT / new).exists(), f"{new} exists: the page's example needs a method of another name"


def test_add_a_method_gives_what_the_page_shows(checkout: Reader):
    shown = sessions("add-a-method.md")
    assert [command for command, _ in shown if command.startswith("pytest")] == ["pytest -q tests/plugins/test_gpo.py"]
    for command, lines in shown:
        if command.startswith("nashtune "):
            checkout.shows(command, lines)
    assert '"nashtune_plugins.gpo:GPOLoss"' in checkout.succeeds("plugins", "--json")
    assert "f(β(h_w − h_l))" in checkout.succeeds("show", "gpo")


@pytest.mark.parametrize("page", ["specs.md"])
def test_a_guide_gives_what_it_shows(page: str):
    shown = sessions(page)
    assert shown
    for command, lines in shown:
        Reader(ROOT).shows(command, lines)


def test_the_new_methods_own_test_passes(checkout: Reader):
    done = checkout.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/plugins/test_gpo.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_new_method_passes_what_is_tested_of_every_spec(checkout: Reader):
    """With the line of the navigation and the row of the overview that the page gives."""
    page = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    for file, after, line in (
        (".mkdocs.yml", "      - Overview: methods/index.md\n", r"^ +(- GPO: methods/gpo\.md)$"),
        ("docs/methods/index.md", "|---|---|---|---|---|\n", r"^ +(\| \[gpo\]\(gpo\.md\) \|.*\|)$"),
    ):
        added = re.search(line, page, re.MULTILINE)
        path = checkout.folder / file
        text = path.read_text(encoding="utf-8")
        assert added is not None and after in text
        indent = " " * (len(after) - len(after.lstrip()))
        path.write_text(text.replace(after, f"{after}{indent}{added[1]}\n"), encoding="utf-8")
    done = checkout.run(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/specs",
        "tests/core/testing",
        "tests/docs/test_docs.py",
        "-k",
        "gpo",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_new_method_keeps_the_projects_style(checkout: Reader):
    changed = ["plugins/nashtune_plugins/gpo.py", "tests/plugins/test_gpo.py"]
    for command in (["ruff", "check"], ["ruff", "format", "--check"]):
        done = checkout.run("-m", *command, "--no-cache", *changed)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("uses_beta = True", "uses_beta = False"), "the loss 'gpo' has no beta, so kl is not read"),
        (("kl: {name: fixed, beta: 0.1}", "kl: none"), "the loss 'gpo' multiplies by beta, but there is no kl"),
        (("references: {ref: base}", "references: none"), "reads the reference 'ref', which is missing"),
        (("f: truncated_quadratic", "g: truncated_quadratic"), "is not an option of 'gpo'"),
    ],
)
def test_mistakes_get_the_messages_that_the_page_lists(checkout: Reader, change: tuple[str, str], message: str):
    page = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    assert f"`{message}`" in page
    module, spec = (
        checkout.folder / "plugins/nashtune_plugins/gpo.py",
        checkout.folder / "specs/nashtune_specs/gpo.yaml",
    )
    marked = module.read_text(encoding="utf-8").replace(
        "\n    def __init__", "\n    uses_beta = True\n\n    def __init__"
    )
    module.write_text(marked.replace(*change), encoding="utf-8")
    spec.write_text(spec.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    refused = checkout.nashtune("check", "gpo")
    assert refused.returncode == 2
    assert message in " ".join(refused.stderr.split())


@pytest.fixture
def third_party(tmp_path: Path) -> Reader:
    """The plugin of the guide, installed as far as Python can tell: a folder on the path with an entry point."""
    files = files_of("extend/hooks.md")
    write(files, tmp_path)
    entry = re.search(r"\[project\.entry-points\.nashtune\]\n(\w+ = \"\w+\")", files["pyproject.toml"])
    assert entry is not None
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: my-method\nVersion: 1.0\n",
        "entry_points.txt": f"[nashtune]\n{entry[1].replace(chr(34), '')}\n",
    }
    write({f"my_method-1.0.dist-info/{name}": text for name, text in metadata.items()}, tmp_path)
    return Reader(tmp_path, tmp_path)


def test_the_plugin_of_the_guide_is_listed_checked_and_right(third_party: Reader):
    assert '"name": "my_loss"' in third_party.succeeds("plugins", "--json")
    assert "my_method" in third_party.succeeds("list")
    third_party.succeeds("check", "my_method")
    assert "cases checked 1" in third_party.succeeds("vectors", "my_method")


def test_the_plugin_of_the_guide_passes_its_own_test(third_party: Reader):
    done = third_party.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_my_method.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_of_the_guide_can_be_blocked(third_party: Reader):
    third_party.environ["NASHTUNE_BLOCK"] = "my_method"
    refused = third_party.nashtune("check", "my_method")
    assert refused.returncode == 2
    assert "my_method" in refused.stderr


def test_a_failing_plugin_is_fatal_where_the_guide_says_so(third_party: Reader):
    (third_party.folder / "my_method/__init__.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    assert third_party.nashtune("list").returncode == 0
    third_party.environ["NASHTUNE_STRICT_PLUGINS"] = "1"
    refused = third_party.nashtune("list")
    assert refused.returncode == 2
    assert "nothing_of_this_name" in refused.stderr


@pytest.mark.parametrize(("page", "run_file"), [("first-run.md", "mine.yaml"), ("specs.md", "run.yaml")])
def test_run_files_of_the_guides_pass_check(page: str, run_file: str, tiny: Path, tmp_path: Path):
    write(files_of(page), tmp_path)
    shutil.copytree(tiny, tmp_path / "models" / "my-model")
    for name in ("train", "validation", "held-out"):
        write_rows(tmp_path / f"{name}.jsonl", pair_rows(8))
    checked = Reader(tmp_path).succeeds("check", "dpo", "--config", run_file)
    assert "8 pairs from train.jsonl" in checked
    assert "tokenizer and a chat template" in checked


@pytest.mark.parametrize("spec", ["my_dpo.yaml", "my_cdpo.yaml"])
def test_specs_of_the_guide_pass_check(spec: str, tmp_path: Path):
    write(files_of("specs.md"), tmp_path)
    Reader(tmp_path).succeeds("check", spec)


def test_vectors_of_the_command_page_pass(tmp_path: Path):
    write(files_of("cli.md"), tmp_path)
    Reader(tmp_path).succeeds("vectors", "cdpo", "--file", "mine.json")


def test_rows_of_the_data_page_are_what_it_says():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    rows = [(heading, json.loads(row)) for heading, row in ROW.findall(page)]
    kinds = {heading: type(parse_row(row, heading)).__name__ for heading, row in rows}
    assert kinds == {"Preference": "Pair", "Unpaired": "Example", "Ranked": "Ranked", "Chat": "Pair"}
    assert len(rows) >= 4
