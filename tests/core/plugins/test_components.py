"""What holds for every component that is installed: a new one is tested before its author writes a line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nashtune.errors import InputError
from nashtune.plugins import Registered, load_plugins, static
from nashtune.plugins.static import class_info, load_class

EVERY = sorted(load_plugins().registry, key=lambda entry: (entry.component.kind, entry.component.name))
NAMES = [f"{entry.component.kind} {entry.component.name}" for entry in EVERY]


@pytest.fixture
def no_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a class by importing it is an error."""

    def refuse(module: str, name: str) -> None:
        raise InputError(f"{module}:{name} was imported to be read")

    monkeypatch.setattr(static, "inspect_class", refuse)


@pytest.mark.parametrize("entry", EVERY, ids=NAMES)
@pytest.mark.usefixtures("no_import")
def test_it_is_read_without_being_imported(entry: Registered):
    info = class_info(entry.component.target)
    assert info.implements(entry.component.kind)
    assert info.target == entry.component.target


@pytest.mark.parametrize("entry", EVERY, ids=NAMES)
def test_it_is_documented_with_every_argument_and_its_type(entry: Registered):
    info = class_info(entry.component.target)
    assert info.summary.endswith(".")
    assert [one.name for one in info.arguments if not one.doc] == []
    assert [one.name for one in info.arguments if not one.annotation] == []


@pytest.mark.parametrize("entry", EVERY, ids=NAMES)
def test_it_can_be_imported_and_implements_its_interface(entry: Registered):
    cls = load_class(entry.component.target, entry.component.kind)
    assert cls.__name__ == entry.component.target.partition(":")[2]


def test_what_is_read_is_what_is_there():
    for entry in EVERY:
        info = class_info(entry.component.target)
        cls = load_class(entry.component.target, entry.component.kind)
        for name, value in info.attributes.items():
            assert getattr(cls, name) == value, f"{info.target}.{name}"


def test_reading_all_of_them_imports_neither_torch_nor_lightning():
    code = (
        "import sys; from nashtune.plugins import load_plugins; from nashtune.plugins.static import class_info\n"
        "for entry in load_plugins().registry: class_info(entry.component.target)\n"
        "print(sorted({'torch', 'lightning', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_plugin_is_broken():
    assert [record.line() for record in load_plugins().records if record.status != "ok"] == []
