"""Mapping tables from their files, `imports/TOOL.yaml` in a folder of specs; plugins may bring some of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib.resources.abc import Traversable
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.importing.entries import Entry, Method, Table, Trainer
from nashtune.plugins import load_plugins
from nashtune.spec.loader import KeyPath, Located, read_yaml

FOLDER = "imports"
"""Folder of mapping tables inside a folder of specs."""
SHARED = "shared"
"""Folder below it: keys and notes that several tools have in common, which a table names under `include`."""
BY_HAND = "by_hand"
"""File in it: tools that have no table, with what to do instead."""
NOTES = "notes"
"""The one word in such a file that is no key: what is to be said of every config."""


def list_tables() -> dict[str, Traversable]:
    """Files of mapping tables by the name of their tool, sorted."""
    found: dict[str, Traversable] = {}
    for _, folder in load_plugins().spec_dirs():
        place = folder / FOLDER
        if place.is_dir():
            found |= {file.name.removesuffix(".yaml"): file for file in place.iterdir() if file.name.endswith(".yaml")}
    return dict(sorted(found.items()))


def load_table(name: str) -> Table:
    """The mapping table of a tool.

    Raises:
        InputError: there is no such table, or it is malformed.
    """
    known = list_tables()
    if name not in known:
        instead = _by_hand(name.lower())
        guess = f": {instead}" if instead else nearest(name.lower(), known)
        raise InputError(f"import: no table for '{name}'{guess}{load_plugins().note()}")
    located = read_yaml(known[name])
    given = dict(_mapping(located, located.data, ()))
    shared: dict[str, Entry] = {}
    notes = list(given.get("notes", []))
    for one in given.pop("include", []):
        common = _shared(one, located.where(("include",)))
        keys = dict(_mapping(common, common.data, ()))
        notes += keys.pop(NOTES, [])
        shared |= _entries(common, keys, ())
    trainers = {
        key: _make(Trainer, located, one, ("trainers", key))
        for key, one in _mapping(located, given.get("trainers", {}), ("trainers",)).items()
    }
    shared |= _entries(located, given.get("keys", {}), ("keys",))
    methods = []
    for number, data in enumerate(given.get("methods", [])):
        path: KeyPath = ("methods", number)
        own = dict(_mapping(located, data, path))
        own["keys"] = _entries(located, own.get("keys", {}), (*path, "keys"))
        methods.append(_make(Method, located, own, path))
    made = {**given, "methods": methods, "keys": shared, "notes": notes, "trainers": trainers}
    table: Table = _make(Table, located, made, ())
    return table


def _by_hand(name: str) -> str:
    """What to do for a tool that has no table; empty where that is not known."""
    for file in _shared_files(BY_HAND):
        located = read_yaml(file)
        known = _mapping(located, located.data, ())
        if name in known:
            return str(known[name])
    return ""


def _shared(name: str, where: str) -> Located:
    """Keys that several tools have in common, as a mapping from keys to entries."""
    for file in _shared_files(name):
        return read_yaml(file)
    raise InputError(f"{where}: no file {FOLDER}/{SHARED}/{name}.yaml in any folder of specs")


def _shared_files(name: str) -> list[Traversable]:
    files = [folder / FOLDER / SHARED / f"{name}.yaml" for _, folder in load_plugins().spec_dirs()]
    return [file for file in files if file.is_file()]


def _entries(located: Located, data: Any, path: KeyPath) -> dict[str, Entry]:
    made = {key: _make(Entry, located, one, (*path, key)) for key, one in _mapping(located, data, path).items()}
    for key, entry in made.items():
        for number, case in enumerate(entry.cases):
            _make(Entry, located, case, (*path, key, "cases", number))
    return made


def _make(cls: Any, located: Located, data: Any, path: KeyPath) -> Any:
    known = {one.name: one for one in fields(cls)}
    for key in _mapping(located, data, path):
        if key not in known:
            what = f"not a key of a mapping table's {cls.__name__}{nearest(str(key), known)}"
            raise InputError(f"{located.where((*path, key))}: '{key}' is {what}")
    try:
        return cls(**data)
    except TypeError as error:
        raise InputError(f"{located.where(path)}: {error}") from error


def _mapping(located: Located, data: Any, path: KeyPath) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise InputError(f"{located.where(path)}: a mapping table has a mapping here")
    return data
