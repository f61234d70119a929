"""Names of components. One name of one kind belongs to one plugin; anything else is an error that names both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nashtune.errors import InputError, nearest
from nashtune.plugins.component import KINDS, Component


@dataclass(frozen=True)
class Registered:
    """A component and where it came from.

    Args:
        component: What the plugin declared.
        plugin: Name of the plugin (its entry point; "nashtune" for the core's own).
        version: Version of the distribution that brought it.
    """

    component: Component
    plugin: str
    version: str

    def __str__(self) -> str:
        return f"plugin '{self.plugin}' {self.version} ({self.component.target})"


class Registry:
    """Components by kind and name.

    Args:
        note: Gives the end of an unknown-name message: which plugins did not load.
    """

    def __init__(self, note: Callable[[], str] = lambda: "") -> None:
        self._note = note
        self._known: dict[tuple[str, str], Registered] = {}
        self._own: set[tuple[str, str]] = set()
        self._clashes: dict[tuple[str, str], list[Registered]] = {}
        self._refused: dict[tuple[str, str], Callable[[], str]] = {}

    def add(self, entry: Registered, *, own: bool = False) -> list[tuple[str, str]]:
        """Take a component in.

        A name of nashtune's own distribution stays with it; two others with the same name make the name unusable.

        Args:
            entry: The component; its kind must be one of `KINDS`.
            own: Whether it comes with nashtune itself.

        Returns:
            (plugin, reason) for each plugin whose component could not be taken.
        """
        key = (entry.component.kind, entry.component.name)
        holder = self._known.get(key)
        if holder is not None and key in self._own and not own:
            reason = f"{_label(key)} is already given by {holder}; the one of {entry} is left out: rename it"
            return [(entry.plugin, reason)]
        if holder is None and key not in self._clashes:
            self._known[key] = entry
            if own:
                self._own.add(key)
            return []
        if holder is not None:
            self._clashes[key] = [self._known.pop(key)]
            self._own.discard(key)
        self._clashes[key].append(entry)
        newcomers = self._clashes[key] if holder is not None else [entry]
        reason = self._clash(key)
        return [(plugin, reason) for plugin in dict.fromkeys(one.plugin for one in newcomers)]

    def refuse(self, component: Component, reason: Callable[[], str]) -> None:
        """Remember what tells why a name cannot be used, for whoever asks for it."""
        self._refused.setdefault((str(component.kind), str(component.name)), reason)

    def get(self, kind: str, name: str) -> Registered:
        """The component of that kind and name.

        Raises:
            InputError: nobody has it (with the nearest name and the plugins that did not load), two plugins have it, or
                the plugin that has it cannot be used.
        """
        key = (kind, name)
        if key in self._known:
            return self._known[key]
        if key in self._clashes:
            raise InputError(self._clash(key))
        if key in self._refused:
            raise InputError(f"{kind} '{name}' cannot be used: {self._refused[key]()}")
        others = [other for other in KINDS if other != kind and (other, name) in self._known]
        hint = f"; '{name}' is a {others[0]}, not a {kind}" if others else ""
        raise InputError(f"no {kind} is called '{name}'{hint}{nearest(name, self.names(kind))}{self._note()}")

    def names(self, kind: str) -> list[str]:
        """Usable names of one kind, sorted.

        Raises:
            InputError: no such kind.
        """
        if kind not in KINDS:
            raise InputError(f"'{kind}' is not a kind of component{nearest(kind, KINDS)}")
        return sorted(name for known, name in self._known if known == kind)

    def __iter__(self) -> Iterator[Registered]:
        return iter(self._known.values())

    def _clash(self, key: tuple[str, str]) -> str:
        entries = self._clashes[key]
        names = dict.fromkeys(entry.plugin for entry in entries)
        step = f"block one (NASHTUNE_BLOCK={list(names)[-1]})" if len(names) > 1 else "rename one"
        return f"{_label(key)} is given by {' and by '.join(map(str, entries))}; {step} or write the class path"


def _label(key: tuple[str, str]) -> str:
    return f"{key[0]} '{key[1]}'"
