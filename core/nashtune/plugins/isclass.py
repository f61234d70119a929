"""Whether a class path names a class, by the source alone: nothing is imported."""

from __future__ import annotations

import ast

from nashtune.errors import InputError
from nashtune.plugins.source import Imported, Unreadable, find_module, read_module

DEPTH = 20  # re-exports that are followed


def refuse_functions(target: str) -> None:
    """Refuse a class path that names a function, a method or a module: it would be called with what the file says.

    Args:
        target: "package.module.Class". What the source does not say is left to the parser, which looks at the object.

    Raises:
        InputError: it names no class.
    """
    found = _definition(target.replace(":", "."), DEPTH)
    if found is not None and not isinstance(found, ast.ClassDef):
        raise InputError(f"{target}: is no class; only classes are named here, because a function would be called")


def _definition(path: str, depth: int) -> ast.stmt | ast.expr | None:
    """What defines a dotted path; None where its source does not show that."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):  # the longest prefix that is a module
        module = ".".join(parts[:cut])
        try:
            if find_module(module) is None:
                continue
            source = read_module(module)
        except (Unreadable, SyntaxError):
            return None
        bound = source.names.get(parts[cut])
        if isinstance(bound, Imported):
            further = ".".join(part for part in (bound.module, bound.name, *parts[cut + 1 :]) if part)
            return _definition(further, depth - 1) if depth and further != path else None
        return _inside(bound, parts[cut + 1 :])
    return None


def _inside(node: ast.stmt | ast.expr | None, names: list[str]) -> ast.stmt | ast.expr | None:
    """A class's class or method; a method of its bases is unknown."""
    for name in names:
        if not isinstance(node, ast.ClassDef):
            return node
        inner = [one for one in node.body if isinstance(one, ast.ClassDef | ast.FunctionDef) and one.name == name]
        node = inner[-1] if inner else None
    return node
