"""What a mapping table says: of every key of another tool's config what it is here, and which loss is which spec.

A key is one of these: taken over (`to`), what happens here anyway (`same`), nothing that training depends on (`left`),
something that the tool itself does not read (`unread`), or without counterpart (`missing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNSET: Any = object()
"""Stands for a value that a table does not give; None is one that it does."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What becomes of one key. One of `to`, `values`, `same`, `left`, `unread` and `missing` says so.

    Args:
        default: The value that the tool takes where a config does not give the key.
        to: Key path here, below `spec.` or in a run file; or a list of them.
        convert: Name of the conversion of the value (`nashtune.importing.convert`).
        using: Another key of the tool, which the conversion reads.
        values: The tool's value -> ours, or -> key paths with their values; other values have no counterpart.
        others: What every value becomes that `values` does not have.
        same: Values that mean what happens here anyway.
        left: Why nothing that is learned depends on the key.
        unread: Why the tool itself does not read the key here.
        missing: What other values than those of `same` mean, and what to do instead.
        also: Further key paths with their values, set with the key.
        note: Where the tool does something else under this key than is done here; shown where the key is in force.
        when: The entry holds only where other keys have these values (`set` and `unset` ask whether they say anything,
            and `name.*` is every value that begins with `name.`); the tool does not read the key elsewhere.
        unless: The entry holds only where they do not all have these values.
        otherwise: What to say of the key where it does not hold, if the tool reads it all the same.
        required: Why there is no default to write out: the tool fails where this key is not given.
        default_of: Another key, whose value the tool takes where this one is not given, or 0.
        cases: Parts of an entry, each with a `when`; the first that holds is laid over this one.
    """

    default: Any = UNSET
    to: str | list[str] = ""
    convert: str = ""
    using: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    others: Any = UNSET
    same: list[Any] = field(default_factory=list)
    left: str = ""
    unread: str = ""
    missing: str = ""
    also: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    when: Mapping[str, Any] = field(default_factory=dict)
    unless: Mapping[str, Any] = field(default_factory=dict)
    otherwise: str = ""
    required: str = ""
    default_of: str = ""
    cases: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """Key paths that the value goes to."""
        return [self.to] if isinstance(self.to, str) and self.to else list(self.to)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A loss of the tool, and the spec that has the same one. The first of a table whose conditions hold is taken.

    Args:
        name: What the tool calls it.
        when: Values of keys that choose it; `trainer` is what `--trainer` or the keys say.
        given: It is chosen by any of these keys being given, too.
        base: The spec to begin with.
        missing: Instead of `base`: why there is none.
        set: Key paths of the spec with their values.
        keys: Entries of this method, on top of those of the table.
        notes: Where the tool's mathematics differs from the paper, or from the spec.
    """

    name: str
    when: Mapping[str, Any] = field(default_factory=dict)
    given: list[str] = field(default_factory=list)
    base: str = ""
    missing: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, Entry] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """One of the trainers of a tool whose config files do not name theirs.

    Args:
        keys: Keys that its config has and no other's.
        says: Key -> values that mean this trainer; where two trainers have a value, the first of the table is meant.
        missing: Why its configs are not imported, and what to do instead.
    """

    keys: list[str] = field(default_factory=list)
    says: Mapping[str, list[Any]] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Everything that is known of a tool's configs.

    Args:
        tool: Its name.
        version: The version whose keys and defaults these are.
        source: How they were learned, and what of it is not verified.
        methods: Its losses.
        keys: Its keys; `a.b` is `b` below `a`, or in the one entry of the list `a`.
        notes: What is to be said of every config.
        renamed: Names that keys had in earlier versions, with the names that they have in this one.
        trainers: Its trainers, where a config does not say which one it is for.
    """

    tool: str
    version: str
    source: str
    methods: list[Method]
    keys: Mapping[str, Entry]
    notes: list[str] = field(default_factory=list)
    renamed: Mapping[str, str] = field(default_factory=dict)
    trainers: Mapping[str, Trainer] = field(default_factory=dict)

    def names(self) -> set[str]:
        """Every key that is known, under any method."""
        return {*self.keys, *self.renamed, *(key for method in self.methods for key in method.keys)}
