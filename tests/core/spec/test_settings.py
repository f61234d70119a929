"""A class is read from its source in the same way as Python itself reads it."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from nashtune.plugins.classinfo import Argument
from nashtune.spec.settings import argument_type, dataclass_info, plain, settings_info
from nashtune.spec.types import Mismatch


def test_a_dataclass_is_read_as_python_makes_it():
    from nashtune.models.config import LoraSettings, PolicyConfig

    for cls in (LoraSettings, PolicyConfig):
        info = settings_info(f"{cls.__module__}:{cls.__name__}")
        fields = {one.name: one for one in dataclasses.fields(cls)}
        assert [one.name for one in info.arguments] == list(fields)
        for one in info.arguments:
            assert one.required == (fields[one.name].default is dataclasses.MISSING)
            assert one.required or one.default == fields[one.name].default
            assert one.doc


def test_a_constructor_is_read_as_python_has_it():
    from nashtune.data.module import PreferenceData

    info = settings_info("nashtune.data.module:PreferenceData")
    parameters = inspect.signature(PreferenceData).parameters
    assert [one.name for one in info.arguments] == list(parameters)
    assert {one.name: one.default for one in info.arguments} == {name: p.default for name, p in parameters.items()}


def test_an_annotation_of_ones_own_module_is_followed(tmp_path, monkeypatch):
    (tmp_path / "settings_of_mine.py").write_text(
        "from dataclasses import dataclass, field\n"
        "from typing import ClassVar, Literal\n"
        "from jsonargparse.typing import restricted_number_type\n"
        "Half = restricted_number_type('Half', float, [('>=', 0), ('<', 0.5)])\n"
        "Word = Literal['a', 'b']\n"
        "@dataclass\n"
        "class Inner:\n"
        "    x: int\n"
        "@dataclass\n"
        "class Outer:\n"
        '    """Settings.\n\n    Args:\n        half: Below one half.\n    """\n'
        "    kind: ClassVar[str] = 'no field'\n"
        "    half: Half = 0.1\n"
        "    word: Word = 'a'\n"
        "    inner: Inner | None = None\n"
        "    many: list[int] = field(default_factory=lambda: [1, 2])\n"
        "    none: list[int] = field(default_factory=list)\n"
        "    three: int = field(default=3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    info = dataclass_info("settings_of_mine:Outer")
    assert info is not None
    arguments = {one.name: one for one in info.arguments}
    assert list(arguments) == ["half", "word", "inner", "many", "none", "three"]
    assert arguments["half"].doc == "Below one half."
    assert (arguments["many"].default, arguments["none"].default, arguments["three"].default) == ([1, 2], [], 3)

    def fails(name, value):
        with pytest.raises(Mismatch) as caught:
            argument_type(arguments[name], "settings_of_mine").check(value)
        return caught.value

    assert "expected a number >= 0 and < 0.5, found 0.5" in str(fails("half", 0.5))
    assert "expected 'a' or 'b', found 'c'" in str(fails("word", "c"))
    assert fails("inner", {"y": 1}).path == ("y",)
    assert fails("inner", {"x": "z"}).path == ("x",)
    assert str(fails("inner", {})) == "is missing; Inner needs a whole number"
    assert "expected a mapping (x) or none, found 5" in str(fails("inner", 5))
    assert argument_type(arguments["inner"], "settings_of_mine").check({"x": 1}) == {"x": 1}


def test_an_annotation_that_nobody_knows_is_left_to_the_class():
    argument = Argument("x", "Widget", True, None, "")
    assert argument_type(argument, "nashtune.errors").check(object) is object


def test_tuples_become_lists():
    assert plain({"a": (1, (2, 3)), "b": "x"}) == {"a": [1, [2, 3]], "b": "x"}
