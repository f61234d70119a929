"""Which functions that its interface requires a class lacks, by the source alone: nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from nashtune.plugins.loading import split_target
from nashtune.plugins.lookup import Found, look_up
from nashtune.plugins.source import Source, Unreadable, read_module
from nashtune.plugins.static import ancestry

BARE = {"abc:ABC", "typing:Generic", "typing:Protocol", "typing_extensions:Protocol", "builtins:object"}
"""Bases outside of what is read that bring no function."""


def missing_functions(target: str) -> tuple[str, ...]:
    """Names of the abstract functions that a class leaves open, sorted; none where nobody can know.

    A base class that cannot be followed, or a class decorator, might bring what is missing: nothing is claimed then.
    """
    try:
        lineage = [_definition(one) for one in ancestry(target)]
        if not all(_is_plain(source, node) for source, node in lineage):
            return ()
    except (Unreadable, SyntaxError, ModuleNotFoundError):
        return ()
    missing: set[str] = set()
    for _, node in reversed(lineage):
        for name, is_abstract in _bound(node):
            (missing.add if is_abstract else missing.discard)(name)
    return tuple(sorted(missing))


def _definition(target: str) -> tuple[Source, ast.ClassDef]:
    module, name = split_target(target)
    found = look_up(read_module(module), name)
    if not isinstance(found, Found) or not isinstance(found.node, ast.ClassDef):
        raise Unreadable(target)
    return found.source, found.node


def _is_plain(source: Source, node: ast.ClassDef) -> bool:
    """Whether all that the class has is in its text and in bases that are read."""
    if any("dataclass" not in ast.unparse(one) for one in node.decorator_list):
        return False
    outside = [look_up(source, ast.unparse(one.value if isinstance(one, ast.Subscript) else one)) for one in node.bases]
    return all(one in BARE for one in outside if isinstance(one, str))


def _bound(node: ast.ClassDef) -> Iterator[tuple[str, bool]]:
    """(name, whether it is abstract) of what a class body binds, in order."""
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        one = waiting.pop(0)
        match one:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield one.name, any(ast.unparse(mark).endswith("abstractmethod") for mark in one.decorator_list)
            case ast.AnnAssign(value=None):
                pass
            case ast.Name(id=name, ctx=ast.Store()):
                yield name, False
            case ast.alias():
                yield one.asname or one.name, False
            case ast.ClassDef():
                yield one.name, False
            case _:
                waiting[:0] = ast.iter_child_nodes(one)
