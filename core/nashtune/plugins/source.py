"""Python modules as text: found, parsed and looked up without being imported."""

from __future__ import annotations

import ast
import functools
import sys
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec

from nashtune.plugins.bindings import Bindings, Imported

__all__ = ["OPAQUE", "Imported", "Source", "Unreadable", "find_module", "parse_module", "read_module"]

OPAQUE = sys.stdlib_module_names | {"torch", "lightning", "transformers", "peft", "jsonargparse", "typing_extensions"}
"""Top-level packages whose classes are taken as they are: large or of no interest to a spec."""


@dataclass(frozen=True, eq=False)
class Source:
    """A parsed module.

    Args:
        module: Its dotted name.
        file: Where its text is.
        names: Top-level definitions and imports by the name they bind, where they bind it to one thing.
        stars: Modules of `from x import *`.
        unclear: Names that it binds in a way that only running it would show (see `Bindings`).
        is_open: Whether it may bind any name at all.
    """

    module: str
    file: str
    tree: ast.Module
    names: Mapping[str, ast.stmt | ast.expr | Imported]
    stars: tuple[str, ...]
    unclear: frozenset[str] = frozenset()
    is_open: bool = False

    def lacks(self, name: str) -> bool:
        """Whether its text binds no such name, nor says that others may."""
        bound = {*self.names, *self.unclear}
        return not ({name, "__getattr__"} & bound or self.stars or self.is_open)


class Unreadable(Exception):
    """The text does not say it; only importing would."""


def find_module(name: str) -> ModuleSpec | None:
    """Like `importlib.util.find_spec`, but never imports the parent packages (torch's cost seconds).

    None where there is no such module, or where only importing its parents would find it.
    """
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__spec__ is not None:
        return loaded.__spec__
    parent = name.rpartition(".")[0]
    above = find_module(parent) if parent else None
    if parent and (above is None or above.submodule_search_locations is None):
        return None
    try:
        path = list(above.submodule_search_locations or ()) if above else None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
            if spec is not None:
                return spec
    except KeyError:
        pass  # a namespace package inside a package that is not imported: its path cannot be known
    return None


def read_module(name: str) -> Source:
    """The parsed source of a module.

    Raises:
        ModuleNotFoundError: there is no such module, or only importing its parents would find it.
        SyntaxError: its text is not Python.
        Unreadable: it has no text (compiled, or made by a loader without one).
    """
    spec = find_module(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return parse_module(spec)


def parse_module(spec: ModuleSpec) -> Source:
    """The parsed source of a module that was found."""
    get_source = getattr(spec.loader, "get_source", None)
    text: str | None = None
    if get_source is not None:
        try:
            text = get_source(spec.name)
        except ImportError as error:
            if isinstance(error.__cause__, SyntaxError | UnicodeDecodeError):
                raise SyntaxError(f"{error.__cause__} ({spec.origin})") from error
            raise Unreadable(str(error)) from error
    elif spec.origin and spec.origin.endswith(".py"):
        with tokenize.open(spec.origin) as stream:
            text = stream.read()
    if text is None:
        raise Unreadable(f"{spec.name} has no source text")
    return _parse(spec.name, spec.origin or spec.name, text, spec.submodule_search_locations is not None)


@functools.lru_cache(maxsize=512)
def _parse(module: str, file: str, text: str, is_package: bool) -> Source:
    tree = ast.parse(text, filename=file)
    bound = Bindings(tree.body, module if is_package else module.rpartition(".")[0])
    return Source(module, file, tree, bound.names, tuple(bound.stars), frozenset(bound.unclear), bound.is_open)
