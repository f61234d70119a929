"""A spec while its layers are put on top of one another: base, file, run files, command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nashtune.errors import InputError
from nashtune.spec.loader import Located
from nashtune.spec.model import COMPONENTS, NONE
from nashtune.spec.overrides import Override, flatten, is_component
from nashtune.spec.types import describe

Path = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """One value and where it was given."""

    value: Any
    where: str


class Draft:
    """Single values by key path: `("loss", "name")`, `("loss", "tau")`, `("references", "ref", "name")`.

    Putting another name on a component drops the arguments of the old one, which belong to another class; the same name
    again keeps them.
    """

    def __init__(self) -> None:
        self.leaves: dict[Path, Leaf] = {}

    def layer(self, located: Located) -> None:
        """Put a whole mapping of sections on top."""
        for override in flatten(located):
            self.put(override)

    def put(self, override: Override) -> None:
        """Put one setting on top.

        Raises:
            InputError: the path or value has the wrong form.
        """
        path, value, where = override.path, override.value, override.where
        section = path[0]
        if is_component(path) and section != "name" and isinstance(value, Mapping):
            tree: Any = value
            for key in reversed(path):
                tree = {key: tree}
            for part in flatten(Located(tree, where)):
                self.put(part)
        elif section == "name" or (section not in COMPONENTS and len(path) == 2):
            if path == ("optimizer", "name"):
                for key in ("betas", "rounding"):  # which not every optimiser reads
                    self._drop(("optimizer", key))
            self.leaves[path] = Leaf(value, where)
        elif section not in COMPONENTS:
            expected = f"--spec.{section}.KEY" if where.startswith("--") else "a mapping"
            raise InputError(f"{where}: {section} takes {expected}, found {describe(value)}")
        elif path == ("references",):
            if value != NONE:
                raise InputError(
                    f"{where}: references takes a mapping such as {{ref: base}}, or none; found {describe(value)}"
                )
            self._drop(path)
        elif is_component(path):
            self._name(path, value, where)
        elif len(path) == (3 if section == "references" else 2):
            if path[-1] == "name":
                self._name(path[:-1], value, where)
            else:
                self.leaves[path] = Leaf(value, where)
        else:
            raise InputError(f"{where}: {'.'.join(path)} lies too deep; a component's options are flat")

    def _name(self, path: Path, value: Any, where: str) -> None:
        value = getattr(value, "text", value)  # typed on the command line as --spec.loss.name
        if not isinstance(value, str):
            dotted = ".".join(path)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            option = f"{dotted}.{'beta' if dotted == 'kl' else 'OPTION'}"
            hint = f"; a number is the value of one of its options: {option}" if number else ""
            raise InputError(
                f"{where}: {dotted} takes a component's name or {{name: ..., option: value}}, found "
                f"{describe(value)}{hint}"
            )
        before = self.leaves.get((*path, "name"))
        if before is None or before.value != value:
            self._drop(path)
        if value == NONE and path[0] == "references":
            self._drop(path)
        else:
            self.leaves[(*path, "name")] = Leaf(value, where)

    def _drop(self, prefix: Path) -> None:
        self.leaves = {path: leaf for path, leaf in self.leaves.items() if path[: len(prefix)] != prefix}

    def below(self, *prefix: str) -> dict[str, Leaf]:
        """Leaves of one component or section by their last key."""
        size = len(prefix)
        return {path[-1]: leaf for path, leaf in self.leaves.items() if path[:size] == prefix and len(path) == size + 1}

    def references(self) -> list[str]:
        """Names of the references that anything was said about."""
        return list(dict.fromkeys(path[1] for path in self.leaves if path[0] == "references"))
