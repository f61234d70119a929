"""A class that a plugin names is refused where it cannot be used, and never for how its source is written."""

from __future__ import annotations

import sys

import pytest

from nashtune.plugins import Component, load_plugins
from nashtune.plugins.loading import load_class
from nashtune.plugins.manager import PluginRecord
from nashtune.plugins.targets import looked_at, problem_of
from nashtune.spec.components import find_component
from nashtune.trust import granted
from plugin_shapes import SHAPES

GOOD = """
    from nashtune.interfaces import Loss

    raise RuntimeError("imported")

    class Mine(Loss):
        def __call__(self, batch, step): ...
"""

PLAIN = GOOD.replace('    raise RuntimeError("imported")\n', "")


def problem(target: str, kind: str = "loss") -> str:
    return problem_of(Component(kind, "mine", target))


def test_a_class_that_is_there_is_read_and_not_imported(site):
    site.file("acme_loss.py", GOOD)
    assert problem("acme_loss:Mine") == ""
    assert "acme_loss" not in sys.modules


BROKEN = {
    "a module that is not there": ("acme_lost:Mine", "there is no module acme_lost"),
    "a submodule that is not there": ("acme_loss.lost:Mine", "there is no module acme_loss.lost"),
    "a class that is not there": ("acme_loss:Mien", "has no class 'Mien'; did you mean 'Mine'? (known: Mine)"),
    "a class of another kind": (
        "acme_loss:Mine",
        "acme_loss:Mine is not a kl: it must be a subclass of nashtune.interf",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_used_is_said(site, what):
    target, said = BROKEN[what]
    site.file("acme_loss.py", PLAIN)
    assert said in problem(target, "kl" if "kind" in what else "loss")


def test_a_syntax_error_is_said_with_the_whole_path(site):
    file = site.file("acme_loss.py", "class Mine(:\n    pass\n")
    assert problem("acme_loss:Mine") == f"acme_loss:Mine cannot be imported: SyntaxError: invalid syntax ({file}:1)"


def test_an_import_of_what_is_not_installed_is_said_with_its_line(site):
    file = site.file("acme/loss.py", "import json\nfrom acme.parts import one\n" + GOOD.replace("\n    ", "\n"))
    parts = site.file("acme/parts.py", "import not_there_at_all.deep\none = 1\n")
    site.file("acme/__init__.py", "")
    assert (
        problem("acme.loss:Mine") == f"{parts}:1: there is no module not_there_at_all.deep; is its package installed?"
    )
    parts.unlink()
    assert problem("acme.loss:Mine") == f"{file}:2: there is no module acme.parts"


@pytest.mark.parametrize(
    ("text", "lost"), [("from .parts import one", "parts"), ("from ..other.two import x", "other.two")]
)
def test_a_relative_import_of_what_is_not_there_is_said(site, text, lost):
    site.file("acme/__init__.py", "")
    site.file("acme/inner/__init__.py", "from .loss import Mine\n")
    file = site.file("acme/inner/loss.py", f"{text}\n" + GOOD.replace("\n    ", "\n"))
    whole = f"acme.inner.{lost}" if lost == "parts" else f"acme.{lost}"
    assert problem("acme.inner.loss:Mine") == f"{file}:1: there is no module {whole}"
    assert problem("acme.inner:Mine") == f"{file}:1: there is no module {whole}"


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import not_there_at_all\nexcept ImportError:\n    pass\n",
        "def later():\n    import not_there_at_all\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import not_there_at_all\n",
    ],
)
def test_an_import_that_may_fail_is_no_problem(site, text):
    site.file("acme_loss.py", text + GOOD.replace("\n    ", "\n"))
    assert problem("acme_loss:Mine") == ""


@pytest.mark.parametrize(
    "text",
    [
        "from acme_parts import Mine\n",
        "from acme_parts import *\n",
        "def __getattr__(name): ...\n",
        "Mine = make()\n",
    ],
)
def test_what_only_importing_would_show_is_taken_for_good(site, text):
    site.file("acme_parts.py", GOOD)
    site.file("acme_loss.py", text)
    assert problem("acme_loss:Mine") == ""


def test_a_namespace_package_is_taken_for_good(site):
    site.file("acme/inner/loss.py", GOOD)
    site.file("acme/__init__.py", "")
    assert problem("acme.inner.loss:Mine") == ""


def test_everything_that_is_installed_is_there():
    assert [one.line() for one in looked_at(load_plugins().records) if one.status != "ok"] == []


def test_the_record_that_was_found_stays_as_it_was(site):
    site.file("acme_loss.py", PLAIN)
    both = [Component("loss", "mine", "acme_loss:Mine"), Component("loss", "gone", "acme_loss:Gone")]
    record = PluginRecord("acme", "acme", "1.0", components=both)
    [found] = looked_at([record])
    assert (found.status, [one.name for one in found.components]) == ("refused", ["mine"])
    assert found.reason == "loss 'gone': module acme_loss has no class 'Gone' (known: Mine)"
    assert (record.status, record.components) == ("ok", both)


def test_what_the_source_refuses_is_imported_and_says_itself_what_is_wrong(site):
    file = site.file("acme_loss.py", 'from json import loads\nraise RuntimeError("broken")\n')
    assert problem("acme_loss:Mine") == f"acme_loss:Mine cannot be imported: RuntimeError: broken ({file}:2)"


@pytest.fixture(params=SHAPES)
def working(site, request):
    """Place of a class that works, in a module of its shape."""
    target, files = SHAPES[request.param]
    for name, text in files.items():
        site.file(name, text)
    yield target
    for name in [one for one in sys.modules if one.startswith("shape_")]:
        del sys.modules[name]


def test_a_class_that_works_is_refused_in_no_shape(working):
    assert problem(working) == ""
    assert load_class(working, "loss")


def test_nor_by_a_spec_that_names_it(working):
    with granted([working.partition(":")[0].partition(".")[0]]):
        assert find_component("loss", working) == (working, None)
