"""Which of a tool's losses a config means, and what holds under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nashtune.errors import InputError
from nashtune.importing.config import Config, plain
from nashtune.importing.entries import UNSET, Entry, Method, Table
from nashtune.terminal import one_line

TRAINER = "trainer"
"""Stands among the keys of conditions for the trainer that a config is for."""


def choose(config: Config, table: Table, trainer: str) -> tuple[Method, Mapping[str, Entry], Mapping[str, Any]]:
    """The method, the entries under it, and the value of every key, defaults among them.

    Raises:
        InputError: the config asks for a sum of losses, or for one that has no counterpart.
    """
    values = _read(config, table.keys)
    choosing = {key for method in table.methods for key in method.when} - {TRAINER}
    values |= {key: alone(values[key]) for key in choosing if key in values} | {TRAINER: trainer}
    for key in choosing:
        if isinstance(values.get(key), list):
            raise InputError(
                f"{_place(choosing, config)}: {key} {word(values[key])}: a sum of losses is not here; the loss of a "
                f"pair is one component, so name one of them (known: {_imported(table)})"
            )
    for method in table.methods:
        named = bool(method.when) and holds(method.when, values)
        if not named and not any(key in config.values for key in method.given):
            continue
        if method.missing:
            raise InputError(
                f"{_place(choosing, config)}: {method.name}: {method.missing}; imported are {_imported(table)}"
            )
        entries = {**table.keys, **method.keys}
        named_by = {key: values[key] for key in (*choosing, TRAINER) if key in config.values or key == TRAINER}
        values = {**_read(config, entries), **named_by}
        return method, {key: _laid_over(entry, values) for key, entry in entries.items()}, values
    shown = ", ".join(f"{key} {values.get(key)!r}" for key in sorted(choosing))
    shown += f" of the trainer {trainer}" if trainer else ""
    raise InputError(
        f"{_place(choosing, config)}: {shown}: {table.tool} {table.version} has no such loss, or it is unknown here "
        f"(known: {_imported(table)})"
    )


def _imported(table: Table) -> str:
    return ", ".join(method.name for method in table.methods if not method.missing)


def _read(config: Config, entries: Mapping[str, Entry]) -> dict[str, Any]:
    values = {key: entry.default for key, entry in entries.items() if entry.default is not UNSET}
    for key, value in config.values.items():
        entry = entries.get(key, Entry())
        known = [entry.default, *entry.same, *({"true": True, "false": False}.get(one) for one in entry.values)]
        number = isinstance(entry.default, int | float) or entry.default in (None, UNSET)
        values[key] = plain(
            value,
            truth=any(isinstance(one, bool) for one in known),
            number=number
            and not isinstance(entry.default, bool)
            and entry.convert not in ("model", "one_model", "rows"),
            nothing=entry.default is None,
        )
    for key, entry in entries.items():
        if entry.default_of and not _says_something(values.get(key)):
            values[key] = values.get(entry.default_of)
    return values


def _laid_over(entry: Entry, values: Mapping[str, Any]) -> Entry:
    """The entry, with its first case that holds."""
    for case in entry.cases:
        if holds(case.get("when", {}), values):
            return replace(entry, **{name: part for name, part in case.items() if name != "when"})
    return entry


def alone(value: Any) -> Any:
    """The one part of a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _place(keys: set[str], config: Config) -> str:
    return next((config.lines[key] for key in config.lines if key in keys), config.source)


def holds(conditions: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether every key has its value.

    `set` and `unset` ask whether the key says anything; `chatml.*` is every value that begins with `chatml.`.
    """
    for key, wanted in conditions.items():
        value = values.get(key)
        if wanted in ("set", "unset"):
            if _says_something(value) != (wanted == "set"):
                return False
        elif not any(_is(word(value), word(one)) for one in (wanted if isinstance(wanted, list) else [wanted])):
            return False
    return True


def _is(value: str, wanted: str) -> bool:
    return value.startswith(wanted[:-1]) if wanted.endswith(".*") else value == wanted


def _says_something(value: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value > 0  # -1 steps and 0 steps are how tools say none
    return bool(value)


def in_words(conditions: Mapping[str, Any]) -> str:
    """Conditions for a message: `use_peft true, eval_strategy steps or epoch`."""
    words = {
        key: " or ".join(word(one) for one in wanted) if isinstance(wanted, list) else word(wanted)
        for key, wanted in conditions.items()
    }
    return ", ".join(f"{key} {text}" for key, text in words.items())


def word(value: Any) -> str:
    """A value as tables write it, in one line: true, none, 0.1, cosine."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        text = short  # 1 for 1.0, so that 1 in a config and 1.0 in a table are the same
    return one_line(text)
