from __future__ import annotations

import ast

import pytest

from nashtune.plugins.lookup import Found, literal, look_up
from nashtune.plugins.source import Unreadable, read_module


def value_of(site, text: str, name: str = "x") -> object:
    site.file("literals_mod.py", text)
    source = read_module("literals_mod")
    node = source.names[name]
    assert isinstance(node, ast.expr)
    return literal(source, node)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x = -1.5", -1.5),
        ("x = ('ref', 'aux')", ("ref", "aux")),
        ("x = {'a': [1, None, True]}", {"a": [1, None, True]}),
        ("SIZE = 3\nx = (SIZE, 'b')", (3, "b")),
        ("x = f'{__name__}:Loss'", "literals_mod:Loss"),
        ("from nashtune.plugins.hookspecs import GROUP\nx = GROUP", "nashtune"),
    ],
)
def test_literals_and_names_of_literals_have_a_value(site, text, value):
    assert value_of(site, text) == value


@pytest.mark.parametrize(
    "text", ["x = len('ab')", "x = 1 / 3", "import math\nx = math.inf", "x = y", "x = [c for c in 'ab']"]
)
def test_what_would_have_to_run_has_none(site, text):
    with pytest.raises(Unreadable):
        value_of(site, text)


def test_a_class_is_followed_through_packages_aliases_and_star_imports(site):
    site.file("followed/__init__.py", "from .public import *")
    site.file("followed/public.py", "from .deep import Real\nAlias = Real")
    site.file("followed/deep.py", "class Real: ...")
    site.file("follower.py", "import followed\nimport followed.deep as d\nfrom followed import Alias as A\n")
    source = read_module("follower")
    for written in ("followed.Alias", "d.Real", "A", "followed.deep.Real"):
        found = look_up(source, written)
        assert isinstance(found, Found)
        assert (found.source.module, found.node.name) == ("followed.deep", "Real")


def test_torch_and_the_standard_library_are_named_and_not_read(site):
    site.file("outside.py", "import torch.nn as nn\nfrom abc import ABC")
    source = read_module("outside")
    assert look_up(source, "nn.Module") == "torch.nn:Module"
    assert look_up(source, "ABC") == "abc:ABC"
    assert look_up(source, "int") == "builtins:int"


def test_a_circle_of_imports_ends(site):
    site.file("circle_a.py", "from circle_b import x")
    site.file("circle_b.py", "from circle_a import x")
    with pytest.raises(Unreadable, match="circle"):
        look_up(read_module("circle_a"), "x")


def test_a_name_from_a_module_that_is_not_installed_cannot_be_followed(site):
    site.file("lost.py", "from not_there_at_all import Base")
    with pytest.raises(Unreadable, match="not_there_at_all"):
        look_up(read_module("lost"), "Base")
