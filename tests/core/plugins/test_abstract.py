"""A class without a function that its interface requires is found in its source, and only where that is sure."""

from __future__ import annotations

import sys

import pytest

from nashtune.errors import InputError
from nashtune.plugins import Component
from nashtune.plugins.abstract import missing_functions
from nashtune.plugins.targets import problem_of
from nashtune.spec.components import find_component
from nashtune.trust import granted

HEAD = """
    from abc import ABC, abstractmethod
    from functools import total_ordering
    from typing import Generic, TypeVar

    from nashtune.interfaces import KLController, Pairing, PreferenceOracle

    T = TypeVar("T")

    def judge(self, prompts, first, second): ...
"""
CLASSES = {
    "all": ("class Mine(PreferenceOracle):\n        def compare(self, prompts, first, second): ...", ()),
    "nothing": ("class Mine(PreferenceOracle):\n        def compares(self): ...", ("compare",)),
    "nothing of two": ("class Mine(Pairing):\n        pass", ("compare", "most")),
    "by assignment": ("class Mine(PreferenceOracle):\n        compare = judge", ()),
    "within an if": ("class Mine(PreferenceOracle):\n        if T:\n            compare = judge", ()),
    "by import": ("class Mine(PreferenceOracle):\n        from operator import add as compare", ()),
    "declared and no more": ("class Mine(PreferenceOracle):\n        compare: object", ("compare",)),
    "by a base class": (
        "class Part:\n        compare = judge\n\n    class Mine(Part, PreferenceOracle, Generic[T]):\n        pass",
        (),
    ),
    "by a base class that comes too late": (
        "class Part:\n        compare = judge\n\n    class Mine(PreferenceOracle, Part):\n        pass",
        ("compare",),
    ),
    "asked for once more": (
        "class Mine(KLController, ABC):\n        @abstractmethod\n        def beta(self, batch): ...",
        ("beta",),
    ),
    "by a base class that is not read": (
        "class Mine(__import__('torch').nn.Module, PreferenceOracle):\n        pass",
        (),
    ),
    "by a decorator": ("@total_ordering\n    class Mine(PreferenceOracle):\n        pass", ()),
}


@pytest.mark.parametrize("how", CLASSES)
def test_what_is_missing(site, how):
    text, missing = CLASSES[how]
    site.file("acme_oracle.py", f"{HEAD}\n    {text}\n")
    assert missing_functions("acme_oracle:Mine") == missing
    assert "acme_oracle" not in sys.modules


def test_a_plugin_and_a_spec_are_told_the_place_and_what_was_meant(site):
    file = site.file("acme_oracle.py", f"{HEAD}\n    {CLASSES['nothing'][0]}\n")
    said = (
        f"acme_oracle:Mine does not implement compare, which an oracle must ({file}:11); it has compares: did you mean "
        "'compare'?"
    )
    assert problem_of(Component("oracle", "mine", "acme_oracle:Mine")) == said
    with granted(["acme_oracle"]), pytest.raises(InputError, match="Mine does not implement compare, which an oracle"):
        find_component("oracle", "acme_oracle.Mine")
