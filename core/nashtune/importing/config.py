"""The config of another tool as flat keys with their lines. It is read as plain data: nothing in it is executed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.importing.jsonfile import read_json
from nashtune.spec.loader import KeyPath, Located, display, read_yaml

ENDINGS = (".yaml", ".yml", ".json")
_NUMBER = re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$")
_WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


@dataclass(frozen=True)
class Config:
    """A config file.

    Args:
        source: The file, for messages.
        values: Value of each key; `a.b` for a key below another one.
        lines: `file:line` of each key.
        conflicts: Keys that stand under two of their names with two values; one message each.
    """

    source: str
    values: Mapping[str, Any]
    lines: Mapping[str, str]
    conflicts: Sequence[str] = ()


def read_config(file: Path, known: Collection[str], renamed: Mapping[str, str]) -> Config:
    """Read a YAML or JSON config.

    Args:
        file: The config.
        known: Keys of the mapping table; a mapping, or a list of one mapping, is taken apart where keys below it are
            known.
        renamed: Earlier names of keys -> their names.

    Raises:
        InputError: no such file, another kind of file, broken, or no mapping.
    """
    if not file.is_file():
        there = [one.name for one in file.parent.glob("*") if one.suffix in ENDINGS]
        guess = nearest(file.name, there).partition(" (known")[0]
        end = f"{guess} Give" if guess else "; give"
        raise InputError(f"{display(file)}: no such file{end} the config that the tool is started with")
    if file.suffix not in ENDINGS:
        raise InputError(
            f"{display(file)}: expected a {', '.join(ENDINGS)} file; Python files are not executed and pickles "
            "(training_args.bin) are not opened: write the settings as YAML, or print them as JSON with the tool's "
            "own `to_json_string()`"
        )
    located = read_json(file) if file.suffix == ".json" else read_yaml(file)
    if not isinstance(located.data, Mapping) or not located.data:
        found = "nothing" if not located.data else "a list" if isinstance(located.data, list) else repr(located.data)
        raise InputError(f"{located.source}: a config is a mapping of keys to values, found {found}")
    values: dict[str, Any] = {}
    lines: dict[str, str] = {}
    _flatten(located, located.data, (), "", known, values, lines)
    conflicts = _conflicts(values, lines, renamed)
    named = {key: renamed.get(key, key) for key in values}
    values, lines = ({named[key]: one for key, one in part.items()} for part in (values, lines))
    return Config(located.source, values, lines, conflicts)


def _conflicts(values: dict[str, Any], lines: dict[str, str], renamed: Mapping[str, str]) -> list[str]:
    """Keep one of two names of a key, the one that says something; the names that say two things."""
    found = []
    for old, new in renamed.items():
        if old not in values or new not in values:
            continue
        silent = old
        if values[new] is None:
            silent = new
        elif values[old] not in (None, False) and _read(values[old]) != _read(values[new]):  # dumps have both names
            found.append(f"{lines[old]}: {old} is an earlier name of {new} ({lines[new]}); keep one of them")
        del values[silent], lines[silent]
    return found


def _read(value: Any) -> Any:
    return plain(value, truth=True, number=True, nothing=True)


def plain(value: Any, *, truth: bool, number: bool, nothing: bool) -> Any:
    """A value as the tool's own parser reads it: `yes` and `1e-5` are text in some places and not in others.

    Args:
        value: As it stands in the file.
        truth: Whether true and false are among the key's values.
        number: Whether it takes a number.
        nothing: Whether it may be none.
    """
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if truth and word in _WORDS:
        return _WORDS[word]
    if nothing and word in ("none", "null", ""):
        return None
    if number and _NUMBER.match(word):
        return int(word) if re.fullmatch(r"[-+]?[0-9]+", word) else float(word)
    return value


def _flatten(
    located: Located,
    data: Mapping[str, Any],
    path: KeyPath,
    prefix: str,
    known: Collection[str],
    values: dict[str, Any],
    lines: dict[str, str],
) -> None:
    for key, value in data.items():
        here, name = (*path, key), f"{prefix}{key}"
        opened = any(one.startswith(f"{name}.") for one in known)
        inner = value
        if opened and isinstance(value, list) and len(value) == 1:
            inner, here = value[0], (*here, 0)
        if opened and isinstance(inner, Mapping):
            _flatten(located, inner, here, f"{name}.", known, values, lines)
        else:
            values[name], lines[name] = value, located.where((*path, key))
