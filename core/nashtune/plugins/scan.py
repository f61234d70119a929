"""Components of a package with one module per paper, read from source: listing 45 losses imports no torch."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

from nashtune.errors import nearest
from nashtune.plugins.component import Component, Problem
from nashtune.plugins.loading import said
from nashtune.plugins.lookup import Found, literal, look_up
from nashtune.plugins.source import Source, Unreadable, parse_module

HOOK = "nashtune_components"


def scan_package(package_name: str, paths: Iterable[str]) -> list[Component | Problem]:
    """What every module directly in a package declares.

    A module declares with a hook:

        @hookimpl
        def nashtune_components():
            return [Component("loss", "acme", "acme_losses.acme:AcmeLoss")]

    A module whose hook is not one such list of literals is imported and its hook called. Modules that begin with `_`,
    and modules that declare nothing, are helpers. A module that cannot be read is a `Problem`; the others go on.

    Args:
        package_name: The package, `__name__` in its `__init__`.
        paths: Its folders, `__path__` there.
    """
    found: list[Component | Problem] = []
    for info in sorted(pkgutil.iter_modules(paths), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        name = f"{package_name}.{info.name}"
        try:
            found.extend(_scan_module(info, name))
        except Exception as error:
            found.append(Problem(name, said(error)))
    return found


def _scan_module(info: pkgutil.ModuleInfo, name: str) -> Iterator[Component | Problem]:
    spec = info.module_finder.find_spec(name, None)
    if spec is None:
        return
    try:
        source = parse_module(spec)
    except Unreadable:
        yield from _imported(name)
        return
    hook = None
    for node in source.tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        marked = any(_is_mark(decorator) for decorator in node.decorator_list)
        where = f"{source.file}:{node.lineno}"
        if marked and node.name != HOOK:
            yield Problem(where, f"'{node.name}' is not read here{nearest(node.name, [HOOK])}")
        elif not marked and node.name == HOOK:
            yield Problem(where, f"{HOOK} is not marked: put @hookimpl (from nashtune.plugins) above it")
        elif marked:
            hook = node
    if hook is not None:
        try:
            yield from _declared(source, hook)
        except Unreadable:
            yield from _imported(name)


def _is_mark(decorator: ast.expr) -> bool:
    plain = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(plain).rpartition(".")[2] == "hookimpl"


def _declared(source: Source, hook: ast.FunctionDef) -> list[Component]:
    """The components of `return [Component(...), ...]`."""
    body = [stmt for stmt in hook.body if not (isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant))]
    match body:
        case [ast.Return(value=ast.List(elts=calls) | ast.Tuple(elts=calls))]:
            return [_component(source, call) for call in calls]
    raise Unreadable(f"{source.file}:{hook.lineno}: not one list of components")


def _component(source: Source, call: ast.expr) -> Component:
    if not isinstance(call, ast.Call) or any(isinstance(arg, ast.Starred) for arg in call.args):
        raise Unreadable("not a component")
    found = look_up(source, ast.unparse(call.func))
    if not isinstance(found, Found) or getattr(found.node, "name", "") != "Component":
        raise Unreadable("not a component")
    if any(keyword.arg is None for keyword in call.keywords):
        raise Unreadable("not literal")
    args = [literal(source, arg) for arg in call.args]
    options: dict[str, Any] = {str(keyword.arg): literal(source, keyword.value) for keyword in call.keywords}
    return Component(*args, **options)


def _imported(name: str) -> list[Component | Problem]:
    hook = getattr(importlib.import_module(name), HOOK, None)
    return [] if hook is None else list(hook())
