from __future__ import annotations

import sys

import pytest

from nashtune.plugins import Component, Problem
from nashtune.plugins.scan import scan_package

PAPER = '''
    """A paper."""

    raise RuntimeError("imported")  # stands for `import torch`

    from nashtune.plugins import Component, hookimpl

    @hookimpl
    def nashtune_components():
        """What it adds."""
        return [
            Component("loss", "one", "papers.one:Loss"),
            Component(kind="kl", name="two", target=f"{__name__}:KL", api=2),
        ]
'''


@pytest.fixture
def scan(site):
    """Writes modules of the package `papers` and scans it."""

    def scan(**modules: str) -> list[Component | Problem]:
        site.file("papers/__init__.py", "")
        for name, text in modules.items():
            site.file(f"papers/{name}.py", text)
        return scan_package("papers", [str(site.folder / "papers")])

    return scan


def test_components_are_read_without_importing_the_module(scan):
    assert scan(one=PAPER) == [
        Component("loss", "one", "papers.one:Loss"),
        Component("kl", "two", "papers.one:KL", api=2),
    ]
    assert "papers.one" not in sys.modules


def test_a_folder_is_a_paper_too(site):
    site.file("papers/__init__.py", "")
    site.file("papers/long/__init__.py", PAPER)
    assert len(scan_package("papers", [str(site.folder / "papers")])) == 2


def test_helpers_declare_nothing(scan):
    assert scan(_private="raise RuntimeError", helper="def shared(): ...\n") == []


def test_a_list_that_is_computed_is_asked_for_by_importing(scan):
    text = """
        from nashtune.plugins import Component, hookimpl

        @hookimpl
        def nashtune_components():
            return [Component("loss", name, f"papers.many:{name}") for name in ("a", "b")]
    """
    assert scan(many=text) == [Component("loss", "a", "papers.many:a"), Component("loss", "b", "papers.many:b")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:", "SyntaxError"),
        (PAPER.replace("nashtune_components", "nashtune_component"), "did you mean 'nashtune_components'?"),
        (PAPER.replace("    @hookimpl\n", ""), "put @hookimpl"),
        (PAPER.replace('"papers.one:Loss"', '"papers.one:Loss", 1, "extra"'), "TypeError"),
        (PAPER.replace("return [", "return 3 + ["), "RuntimeError: imported"),
    ],
)
def test_a_module_that_cannot_be_read_is_a_problem_and_the_others_go_on(scan, text, said):
    found = scan(bad=text, good=PAPER)
    [problem] = [one for one in found if isinstance(one, Problem)]
    assert said in str(problem) and "bad" in str(problem)
    assert [one.name for one in found if isinstance(one, Component)] == ["one", "two"]
