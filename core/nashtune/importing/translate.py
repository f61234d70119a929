"""From a config and a mapping table to the settings of a spec and of a run file, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nashtune.errors import InputError, nearest
from nashtune.importing.config import Config
from nashtune.importing.convert import CONVERSIONS, NoCounterpart
from nashtune.importing.entries import UNSET, Entry, Method, Table
from nashtune.importing.instead import Instead
from nashtune.importing.method import choose, holds, in_words, word
from nashtune.importing.trainer import trainer_of
from nashtune.spec.findings import Findings

Outcome = Literal["mapped", "same", "left", "unread", "lost"]
TAKES_NOTHING = ("twice", "limit")
"""Conversions that make something of a key that is empty."""
GUESSES = ("model", "one_model", "rows")
"""Conversions that take `owner/name` for a name on the hub where there is no such folder or file."""


@dataclass(frozen=True)
class Item:
    """What became of one key.

    Args:
        key: As the tool calls it.
        value: What it is there.
        where: `file:line`, or that it is the tool's default.
        given: Whether the config gives it.
        outcome: Taken over; the same here anyway; nothing depends on it; not read by the tool itself; lost.
        settings: Key paths here with their values, where it is taken over.
        text: Why, where it is not.
    """

    key: str
    value: Any
    where: str
    given: bool
    outcome: Outcome
    settings: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class Translation:
    """A config in this project's words.

    Args:
        table: What it was translated by.
        method: The tool's loss.
        settings: Value of each key path, `spec.` or of a run file.
        origins: Where each of them comes from, for people.
        items: What became of each key: those that are given, and defaults that are taken over or lost.
        notes: Where the tool does something else under the same name.
        conflicts: Keys that say two things of one; nothing may be written while there are any.
    """

    table: Table
    method: Method
    settings: Mapping[str, Any]
    origins: Mapping[str, str]
    items: Sequence[Item]
    notes: Sequence[str]
    conflicts: Sequence[str] = ()

    def of(self, outcome: Outcome) -> list[Item]:
        """The items of one outcome."""
        return [item for item in self.items if item.outcome == outcome]

    def losses(self) -> list[str]:
        """One line for every key that has no counterpart."""
        return [f"{item.where}: {item.key}: {item.text}" for item in self.of("lost")]


def translate(config: Config, table: Table, trainer: str = "") -> Translation:
    """Find the method, then what becomes of every key.

    Args:
        config: The config.
        table: The tool's table.
        trainer: Which of the tool's trainers the config is for, where the command says it.

    Raises:
        InputError: the trainer is not known, or the method has no counterpart, so that there is nothing to begin with.
    """
    try:
        trainer, how = trainer_of(config, table, trainer)
        method, entries, values = choose(config, table, trainer)
    except InputError as error:
        if config.conflicts:
            raise Findings([*config.conflicts, str(error)]) from error
        raise
    items = [_unknown(key, config, table, entries) for key in config.values if key not in entries]
    for key, entry in entries.items():
        if key in config.values or entry.default is not UNSET or entry.required or values.get(key) is not None:
            item = _item(key, entry, values, config, table, method)
            items += [item] if item is not None else []
    settings: dict[str, Any] = dict(method.set)
    origins = dict.fromkeys(settings, f"{method.name} of {table.tool}")
    placed: dict[str, Item] = {}
    conflicts = list(config.conflicts)
    for item in sorted(items, key=lambda one: one.given):  # what is given, over defaults
        for path, value in item.settings.items():
            other = placed.get(path)
            if other is not None and other.given and item.given and settings[path] != value:
                conflicts.append(
                    f"{item.where}: {item.key} and {other.key} ({other.where}) both set {path}; keep one of them"
                )
            settings[path], placed[path] = value, item
            origins[path] = f"{item.key}, {item.where}"
    items = [item for item in items if item.given or not item.settings or item in placed.values()]  # not overruled ones
    instead = Instead(method, settings, origins)
    items = [
        replace(one, text=one.text + instead.of(entries.get(one.key))) if one.outcome == "lost" else one
        for one in items
    ]
    notes = [*([how] if how else []), *method.notes, *table.notes]
    live = {item.key for item in items if item.outcome == "mapped" or (item.given and item.outcome == "left")}
    notes += [f"{key}: {entry.note}" for key, entry in entries.items() if entry.note and key in live]
    notes += [text for item in items if (text := _guessed(item, entries.get(item.key)))]
    order = {key: number for number, key in enumerate(config.values)}
    items.sort(key=lambda one: order.get(one.key, len(order)))
    return Translation(table, method, settings, origins, items, notes, conflicts)


def _guessed(item: Item, entry: Entry | None) -> str:
    """A note where `owner/name` was taken for a name on the hub: a folder beside the config may be meant."""
    if entry is None or entry.convert not in GUESSES or item.outcome != "mapped":
        return ""
    ours = next((str(one) for one in item.settings.values() if str(one).startswith("hub:")), "")
    if not ours or str(item.value).startswith("hub:"):
        return ""
    return (
        f"{item.key}: there is no {item.value} below the current folder, so it is taken for a name on the hub, {ours}; "
        "where files of that name are meant, give their path"
    )


def _unknown(key: str, config: Config, table: Table, entries: Mapping[str, Entry]) -> Item:
    hint = nearest(key, entries).partition(" (known")[0]
    text = f"not in the table of {table.tool} {table.version}{hint}"
    return Item(key, config.values[key], config.lines[key], True, "lost", text=text)


def _item(
    key: str, entry: Entry, values: Mapping[str, Any], config: Config, table: Table, method: Method
) -> Item | None:
    value, given = values.get(key), key in config.values
    where = config.lines.get(key, f"{table.tool}'s default")
    if not given and entry.default_of in config.lines:
        where = f"as {entry.default_of}, {config.lines[entry.default_of]}"

    def made(outcome: Outcome, text: str = "", settings: Mapping[str, Any] | None = None) -> Item | None:
        silent = not given and outcome not in ("mapped", "lost")
        if outcome == "lost" and not given:
            default = f"so that it is {entry.default_of}" if entry.default_of else f"and {table.tool}'s default is"
            text = f"not given, {default} {word(value)}: {text}"
            return Item(key, value, config.source, given, outcome, text=text)
        return None if silent else Item(key, value, where, given, outcome, settings or {}, text)

    read = holds(entry.when, values)
    if entry.otherwise and (not read or (entry.unless and holds(entry.unless, values))):
        return made("left", entry.otherwise)
    if not read:
        return made("unread", f"{table.tool} reads it only with {in_words(entry.when)}")
    if entry.unless and holds(entry.unless, values):
        return made("unread", f"{table.tool} does not read it with {in_words(entry.unless)}")
    if entry.unread:
        return made("unread", entry.unread)
    if entry.left:
        return made("left", entry.left)
    if entry.required and value in (None, "", []):
        return Item(key, value, config.lines.get(key, config.source), given, "lost", text=entry.required)
    if word(value) in [word(one) for one in entry.same] or _is_nothing(value, entry):
        return made("same")
    if entry.values:
        if word(value) not in entry.values and entry.others is UNSET:
            known = entry.missing or f"{word(value)} has no counterpart (known: {', '.join(entry.values)})"
            return made("lost", known)
        ours = entry.values.get(word(value), entry.others)
        settings = dict(ours) if isinstance(ours, Mapping) else dict.fromkeys(entry.paths, ours)
        return made("mapped", settings={**settings, **entry.also})
    if entry.missing:
        return made("lost", entry.missing)
    if not entry.paths:  # a key that chooses the method
        return made("mapped", settings={"spec.base": method.base})
    converted = value
    if entry.convert:
        try:
            converted = CONVERSIONS[entry.convert](value, values.get(entry.using))
        except NoCounterpart as error:
            return made("lost", str(error))
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            return made("lost", f"{word(value)} is no number that can be converted")
        if converted is None:
            return made("same")
    return made("mapped", settings={**dict.fromkeys(entry.paths, converted), **entry.also})


def _is_nothing(value: Any, entry: Entry) -> bool:
    """Whether the key is empty, and that means nothing."""
    return value is None and entry.convert not in TAKES_NOTHING and "none" not in entry.values
