"""What a spec of our own must bring beside what holds for all (see tests/core/testing/test_contracts.py)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from method_numbers import VECTORS, all_vectors, text
from nashtune.cli.main import main
from nashtune.spec.locate import find_spec, list_specs
from nashtune.spec.model import ABOUT
from nashtune.spec.resolve import resolve

ROOT = Path(__file__).parents[2]
SPECS = sorted(listed.name for listed in list_specs() if listed.plugin == "builtin")
SECTIONS = ("Equation", "Conventions", "Departures", "Hyper-parameters", "Metrics")
COMPUTED = all_vectors()

each_spec = pytest.mark.parametrize("name", SPECS)


def test_the_first_family_is_there():
    family = {"dpo", "cdpo", "ipo", "ipo_sum", "slic_hinge", "simpo", "orpo", "kto", "epsilon_dpo"}
    assert family <= set(SPECS) and family <= set(COMPUTED)


@each_spec
def test_header_names_paper_command_and_override(name):
    lines = find_spec(name).read_text(encoding="utf-8").splitlines()
    about = resolve(name).about
    assert about["paper"] in lines[0]
    assert re.match(rf"# run: +nashtune fit --spec {name} --config \S", lines[1])
    assert re.match(r"# override: +--spec\.\S+ \S", lines[2])


@each_spec
def test_the_override_in_the_header_works(name, capsys):
    line = find_spec(name).read_text(encoding="utf-8").splitlines()[2]
    example = re.split(r" {3,}\(", line.partition("override:")[2].strip())[0]
    assert main(["check", name, *example.split()]) == 0
    assert "ok" in capsys.readouterr().out


@each_spec
def test_about_says_everything(name):
    spec = resolve(name)
    required = set(ABOUT) - {"values", "reduces_to"}
    assert not {key for key in required if not spec.about.get(key)}
    assert (ROOT / "plugins" / "nashtune_plugins" / f"{spec.about['plugin']}.py").is_file()
    assert re.search(r"\b(sums|averages|reduction)\b", spec.about["conventions"]), (
        "say whether log-probs are sums or means"
    )


@each_spec
def test_every_value_has_its_source(name):
    """A value is explained by a comment on its own line."""
    lines = find_spec(name).read_text(encoding="utf-8").splitlines()
    after_about = next(line for line in lines if re.match(r"(loss|sampler|schedule):", line))
    body = lines[lines.index(after_about) :]
    bare = [line for line in body if re.match(r"  [a-z_]+: [-\d.]", line) and "#" not in line]
    assert not bare


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_vectors_are_what_the_equations_give_with_50_digits(name):
    """After a change there: `python tests/method_numbers.py` writes the files."""
    assert (VECTORS / f"{name}.json").read_text(encoding="utf-8") == text(COMPUTED[name])


@each_spec
def test_has_a_page_with_the_usual_sections(name):
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert not set(SECTIONS) - set(headings)
