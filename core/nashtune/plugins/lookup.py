"""What a name or a literal in a module's text means, followed through imports without importing."""

from __future__ import annotations

import ast
import builtins
from typing import Any, NamedTuple

from nashtune.plugins.source import OPAQUE, Imported, Source, Unreadable, find_module, read_module

DEPTH = 20
"""Imports and aliases that are followed."""


class Found(NamedTuple):
    """A definition and the module that holds it."""

    source: Source
    node: ast.stmt | ast.expr


def look_up(source: Source, dotted: str, depth: int = 0) -> Found | str:
    """What a dotted name means in a module, through imports and plain aliases.

    Returns:
        The definition, or "module:name" where it lies outside what is read (the standard library, torch, builtins).

    Raises:
        Unreadable: the name cannot be followed.
    """
    head, _, rest = dotted.partition(".")
    if depth > DEPTH:
        raise Unreadable(f"{source.file}: {dotted} leads in a circle")
    if head in source.unclear or source.is_open:
        raise Unreadable(f"{source.file}: only running it shows what {head} is")
    bound = source.names.get(head)
    if isinstance(bound, Imported):
        return _look_up_imported(bound, rest, depth)
    if bound is None:
        for module in reversed(source.stars):
            if _binds(module, head, set()):
                return look_up(_read(module), dotted, depth + 1)
        if not hasattr(builtins, head):
            raise Unreadable(f"{source.file}: nothing there says what {head} is")
        return f"builtins:{dotted}"
    if rest:
        raise Unreadable(f"{source.file}: {dotted} is not a plain name")
    if isinstance(bound, ast.Name | ast.Attribute):
        return look_up(source, ast.unparse(bound), depth + 1)
    return Found(source, bound)


def _binds(module: str, name: str, seen: set[str]) -> bool:
    """Whether `from module import *` brings a name, as far as its text and that of modules below it says."""
    if module in seen or module.partition(".")[0] in OPAQUE:
        return False
    seen.add(module)
    source = _read(module)
    return name in source.names or name in source.unclear or any(_binds(star, name, seen) for star in source.stars)


def _look_up_imported(bound: Imported, rest: str, depth: int) -> Found | str:
    path = ".".join(part for part in (bound.module, bound.name, rest) if part)
    if path.partition(".")[0] in OPAQUE:
        module, _, name = path.rpartition(".")
        return f"{module}:{name}"
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):  # the longest prefix that is a module
        module = ".".join(parts[:cut])
        if find_module(module) is not None:
            return look_up(_read(module), ".".join(parts[cut:]), depth + 1)
    raise Unreadable(f"no module for {path}")


def _read(module: str) -> Source:
    try:
        return read_module(module)
    except (ModuleNotFoundError, SyntaxError) as error:
        raise Unreadable(str(error)) from error


def literal(source: Source, node: ast.expr) -> Any:
    """Value of an expression of literals and of names bound to literals; `__name__` is the module's.

    Raises:
        Unreadable: it is anything else.
    """

    class Names(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.expr:
            if name.id == "__name__":
                return ast.Constant(source.module)
            found = look_up(source, name.id)
            if isinstance(found, str) or not isinstance(found.node, ast.expr):
                raise Unreadable(f"{source.file}:{name.lineno}: {name.id} is not a literal")
            return ast.Constant(literal(found.source, found.node))

        def visit_JoinedStr(self, text: ast.JoinedStr) -> ast.expr:
            if any(
                isinstance(part, ast.FormattedValue) and (part.format_spec or part.conversion != -1)
                for part in text.values
            ):
                raise ValueError("its form is for Python to work out")
            parts = [part.value if isinstance(part, ast.FormattedValue) else part for part in text.values]
            return ast.Constant("".join(str(literal(source, part)) for part in parts))

    try:
        return ast.literal_eval(Names().visit(ast.parse(ast.unparse(node), mode="eval").body))
    except (ValueError, TypeError, SyntaxError, RecursionError) as error:
        raise Unreadable(f"{source.file}:{node.lineno}: {ast.unparse(node)} is not a literal") from error
