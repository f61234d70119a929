from __future__ import annotations

import difflib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nashtune.cli.commands import COMMANDS
from nashtune.plugins import hookspecs
from nashtune.spec.locate import list_specs
from nashtune.spec.resolve import resolve

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "plugin-template" not in page.parts)
SPECS = sorted(listed.name for listed in list_specs() if listed.plugin == "builtin")
CODE = re.compile(r"^( *)(`{3,})[^\n]*\n.*?^\1\2 *$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without fenced code."""
    return CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    from markdown.extensions.toc import slugify

    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings}


def nav() -> list[str]:
    def walk(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        parts = node.values() if isinstance(node, dict) else node
        return [page for part in parts for page in walk(part)]

    return walk(yaml.safe_load((ROOT / ".mkdocs.yml").read_text(encoding="utf-8"))["nav"])


def test_there_are_specs_to_document():
    assert {"dpo", "ipo", "epsilon_dpo"} <= set(SPECS)


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_has_a_page_in_the_navigation_and_in_the_overview(name: str):
    assert (DOCS / "methods" / f"{name}.md").is_file(), f"write docs/methods/{name}.md"
    assert f"methods/{name}.md" in nav(), f"add `methods/{name}.md` under Methods in .mkdocs.yml"
    overview = (DOCS / "methods" / "index.md").read_text(encoding="utf-8")
    assert f"[{name}]({name}.md)" in overview, f"add a row for {name} to docs/methods/index.md"


@pytest.mark.parametrize("name", SPECS)
def test_a_method_page_names_its_paper_and_every_option_of_its_spec(name: str):
    page = (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")
    spec = resolve(name)
    assert spec.about["paper"].removeprefix("arXiv:") in page
    options = [".".join((*path, option)) for path, component in spec.components() for option in component.args]
    missing = [option for option in options if f"`{option}`" not in page and option.split(".")[0] in ("loss", "kl")]
    assert not missing, f"docs/methods/{name}.md does not say `{'`, `'.join(missing)}`"


def test_every_page_is_in_the_navigation_once():
    listed = nav()
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


def test_every_hook_of_the_core_is_in_the_list_of_hooks():
    marked = {name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.GROUP}_spec")}
    assert marked == set(hookspecs.HOOKS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_section_and_its_help(command: str):
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert f"\n## {command}\n" in page
    section = page.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    as_fit = "options of [`fit`](#fit)" in section or "the same options" in section
    assert as_fit if command in ("validate", "test", "predict") else f"<!-- help: {command} -->" in section


def test_help_texts_are_current():
    render = runpy.run_path(str(Path(__file__).with_name("render_cli_help.py")))["render"]
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    now = render(page)
    if words(page) == words(now):
        return
    changes = difflib.unified_diff(page.splitlines(), now.splitlines(), "docs/cli.md", "now", lineterm="", n=0)
    pytest.fail("\n".join(["run `python tests/docs/render_cli_help.py`", *changes]))


def words(page: str) -> list[str]:
    """The page without line breaks, and with `-c, --config CONFIG` as Python 3.13 and later write it."""
    return re.sub(r"(-\w) ([A-Z]+), (--\w+ \2)", r"\1, \3", page).split()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_between_pages_resolve(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(place), f"{page.name}: {target}: no such heading in {place.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path):
    named = re.findall(r"`((?:core|plugins|specs|tests|docs)/[\w./]+)`", prose(page))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_environment_variables_of_the_front_are_listed():
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "core").rglob("*.py")]
    used = {name for source in sources for name in re.findall(r"\"(NASHTUNE_[A-Z_]+)\"", source)}
    inner = {"NASHTUNE_RUN_DIR", "NASHTUNE_LAUNCHER"}  # from rank 0, and from Ray's actors, to the ranks they start
    assert used - inner == {name for name in re.findall(r"`(NASHTUNE_[A-Z_]+)", page)}


def test_the_changelog_keeps_its_format():
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Changelog"
    releases = [line for line in lines if line.startswith("## ")]
    assert releases[0] == "## Unreleased"
    assert all(re.fullmatch(r"## \d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", line) for line in releases[1:])
    groups = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {line.removeprefix("### ") for line in lines if line.startswith("### ")} <= groups
    entries = [line for line in lines if line.startswith("- ")]
    assert entries
    assert all(re.match(r"- \S.*[.:]$", line) for line in entries), (
        "an entry is a sentence on one line, with its full stop"
    )


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / ".mkdocs.yml")]
    built = subprocess.run([*command, "-d", str(tmp_path / "site")], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "What happens in a run" in home
    outside = re.findall(r'(?:src|<link[^>]*href)="(https?://[^"]+)"', home)
    assert not outside, "the site loads nothing from outside"
