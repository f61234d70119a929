"""The mapping tables as data: every path, conversion and spec that they name is there."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from nashtune.importing.convert import CONVERSIONS
from nashtune.importing.entries import UNSET, Entry, Table
from nashtune.importing.tables import list_tables, load_table
from nashtune.plugins.static import class_info
from nashtune.spec.model import Spec
from nashtune.spec.resolve import resolve
from nashtune.spec.run import RUN_SECTIONS
from nashtune.spec.runoptions import SECTION_CLASSES
from nashtune.spec.runtrainer import trainer_options
from nashtune.spec.settings import settings_info

TOOLS = ["axolotl", "llamafactory", "trl"]
LORA = {argument.name for argument in settings_info("nashtune.models.config:LoraSettings").arguments}


def entries(table: Table) -> list[tuple[str, Entry]]:
    both = [*table.keys.items(), *(pair for method in table.methods for pair in method.keys.items())]
    return [(key, entry) for key, entry in both]


def paths(entry: Entry) -> set[str]:
    cases = [case.get("values", {}).values() for case in entry.cases]
    found = {*entry.paths, *entry.also, *(path for case in entry.cases for path in case.get("also", {}))}
    for ours in (*entry.values.values(), *(one for values in cases for one in values), entry.others):
        found |= set(ours) if isinstance(ours, dict) else set()
    return found


@cache
def base_spec(name: str) -> Spec:
    return resolve(name)


@cache
def exists(path: str, base: str) -> bool:
    """Whether a key path is one of a run file, or of the spec `base`."""
    section, _, rest = path.partition(".")
    if section != "spec":
        if section not in RUN_SECTIONS:
            return False
        if section == "trainer":
            return rest in trainer_options()
        if rest.startswith("lora."):
            return rest.removeprefix("lora.") in LORA
        known = {one.name for one in settings_info(SECTION_CLASSES[section]).arguments} if rest else set()
        return not rest or rest in known
    part, _, key = rest.partition(".")
    spec = base_spec(base)
    if part == "optimizer":
        return key.partition(".")[0] in {one.name for one in class_info("nashtune.spec.model:OptimizerSpec").arguments}
    component: Any = getattr(spec, part)
    return part in ("about", "references") or not key or component is None or key in {"name", *component.args}


def test_the_tools_that_have_tables():
    assert list(list_tables()) == TOOLS


@pytest.mark.parametrize("tool", TOOLS)
def test_a_table_says_one_thing_of_every_key(tool: str):
    table = load_table(tool)
    assert table.version and table.source
    for key, entry in entries(table):
        said = [bool(entry.paths or entry.values), bool(entry.left), bool(entry.unread)]
        chooses = entry.default is not UNSET and not entry.missing and not entry.same
        assert sum(said) == 1 or (not any(said) and (entry.missing or entry.same or chooses)), key
        assert not entry.convert or entry.convert in CONVERSIONS, key
        assert not entry.using or entry.using in dict(entries(table)), key
        assert not entry.default_of or entry.default_of in dict(entries(table)), key
        for other in (*entry.when, *entry.unless, *(one for case in entry.cases for one in case["when"])):
            assert other in dict(entries(table)), f"{key} asks for {other}"


@pytest.mark.parametrize("tool", TOOLS)
def test_every_path_of_a_table_is_an_option(tool: str):
    table = load_table(tool)
    for method in table.methods:
        assert bool(method.base) != bool(method.missing), method.name
        if not method.base:
            continue
        for key, entry in {**table.keys, **method.keys}.items():
            for path in paths(entry):
                assert exists(path, method.base), f"{method.name}: {key} goes to {path}"


def test_a_malformed_table_is_an_error_with_its_place(tmp_path, monkeypatch):
    from nashtune.errors import InputError
    from nashtune.importing import tables

    file = tmp_path / "odd.yaml"
    file.write_text("tool: Odd\nversion: '1'\nsource: me\nmethods: []\nkeys:\n  lr: {too: spec.optimizer.lr}\n")
    monkeypatch.setattr(tables, "list_tables", lambda: {"odd": file})
    with pytest.raises(
        InputError,
        match=r"odd.yaml:6: 'too' is not a key of a mapping table's Entry; did you mean 'to'\? \(known: also, ",
    ) as error:
        load_table("odd")
    assert "left, missing, note" in str(error.value)


@pytest.mark.parametrize("tool", TOOLS)
def test_no_refusal_says_its_name_twice(tool: str):
    for method in load_table(tool).methods:
        assert not method.missing.lower().startswith(method.name.lower().removeprefix("a ")), method.name
