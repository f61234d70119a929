"""What a spec needs to know of a component's class, read from its source: the class's module is not imported.

Importing a loss means importing torch, which costs seconds; `check`, `show` and `schema` need only its arguments, their
documentation and a few literal class attributes.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from nashtune.errors import InputError
from nashtune.plugins.annotations import annotation_text
from nashtune.plugins.bindings import Bindings, Imported
from nashtune.plugins.classinfo import Argument, ClassInfo, argument_docs
from nashtune.plugins.inspected import inspect_class
from nashtune.plugins.loading import load_class, said, split_target
from nashtune.plugins.lookup import Found, literal, look_up
from nashtune.plugins.scan import scan_package
from nashtune.plugins.source import OPAQUE, Source, Unreadable, find_module, read_module

__all__ = ["Argument", "ClassInfo", "class_info", "load_class", "scan_package"]

INTERFACES = "nashtune.interfaces"
SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def class_info(target: str) -> ClassInfo:
    """Read a class named "module:Class" or "package.module.Class".

    Where the source does not say it (a compiled module, a default that is computed, a dataclass, a base class that
    cannot be followed), the module is imported and inspected instead.

    Raises:
        InputError: there is no such module or class, its source is not Python, or an attribute that the interface
            declares is set where only running the constructor would show it.
    """
    module, name = split_target(target)
    try:
        if find_module(module) is None:
            raise Unreadable(module)
        source = read_module(module)
        found = look_up(source, name)
        if not isinstance(found, Found) or not isinstance(found.node, ast.ClassDef):
            raise Unreadable(f"{module} defines no class {name}")
        return _read_class(_shadow(found.source, found.node))
    except (Unreadable, RecursionError):  # a class whose bases lead back to it, by its text
        return inspect_class(module, name)
    except SyntaxError as error:
        raise InputError(f"{target} cannot be read: {said(error)}") from error


def ancestry(target: str) -> tuple[str, ...]:
    """A class and every ancestor of it, nearest first, as "module:Class"; read, never imported.

    Raises:
        ModuleNotFoundError: there is no such module.
        SyntaxError: its source is not Python.
        Unreadable: only importing would show it.
    """
    module, name = split_target(target)
    found = look_up(read_module(module), name)
    if not isinstance(found, Found) or not isinstance(found.node, ast.ClassDef):
        raise Unreadable(f"{module} defines no class {name}")
    try:
        shadow = _shadow(found.source, found.node)
    except RecursionError as error:
        raise Unreadable(f"the bases of {target} lead back to it") from error
    lineage = [vars(cls)["found"] for cls in shadow.__mro__ if "found" in vars(cls)]
    return tuple(f"{one.source.module}:{one.node.name}" for one in lineage)


@functools.lru_cache(maxsize=512)
def _shadow(source: Source, node: ast.ClassDef) -> type:
    """An empty class with the same ancestry, so that Python itself works out the order of inheritance."""
    bases: list[type] = []
    if node.keywords or any(isinstance(one, ast.FunctionDef) and one.name == "__init_subclass__" for one in node.body):
        raise Unreadable(f"{source.file}:{node.lineno}: what makes the class, or its subclasses, may change them")
    for mark in node.decorator_list:
        plain = mark.func if isinstance(mark, ast.Call) else mark
        if not isinstance(look_up(source, _dotted(source, plain)), str):
            raise Unreadable(f"{source.file}:{mark.lineno}: a decorator may change the class")
    for base in node.bases:
        plain = base.value if isinstance(base, ast.Subscript) else base
        found = look_up(source, _dotted(source, plain))
        if isinstance(found, str):
            if found.partition(":")[0].partition(".")[0] not in OPAQUE:
                raise Unreadable(found)
        elif isinstance(found.node, ast.ClassDef):
            bases.append(_shadow(found.source, found.node))
        else:
            raise Unreadable(f"{source.file}:{base.lineno}: {ast.unparse(base)} is not a class")
    try:
        return type(node.name, tuple(dict.fromkeys(bases)), {"found": Found(source, node)})
    except TypeError as error:
        raise Unreadable(str(error)) from error


def _dotted(source: Source, node: ast.expr) -> str:
    """`a.b.c`; a call, a condition or anything else that Python would have to work out has no such form."""
    inner = node
    while isinstance(inner, ast.Attribute):
        inner = inner.value
    if not isinstance(inner, ast.Name):
        raise Unreadable(f"{source.file}:{node.lineno}: {ast.unparse(node)} is not a name")
    return ast.unparse(node)


def _read_class(shadow: type) -> ClassInfo:
    lineage = [vars(cls)["found"] for cls in shadow.__mro__ if "found" in vars(cls)]
    source, node = lineage[0]
    doc = ast.get_docstring(node) or ""
    return ClassInfo(
        module=source.module,
        name=node.name,
        summary=doc.partition("\n")[0].strip(),
        doc=doc,
        arguments=_arguments(lineage),
        attributes=_attributes(lineage),
        file=source.file,
        line=node.lineno,
        bases=tuple(f"{base.source.module}:{base.node.name}" for base in lineage[1:]),
    )


def _attributes(lineage: list[Found]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    declared: set[str] = set()
    for source, node in reversed(lineage):
        assert isinstance(node, ast.ClassDef)
        for stmt in node.body:
            if isinstance(stmt, ast.FunctionDef) and stmt.name in declared:
                raise InputError(f"{source.file}:{stmt.lineno}: {_must(node, stmt.name)}")
        own, unclear = _members(node)
        if not isinstance(own.get("__init__"), ast.FunctionDef | None):
            unclear |= {"__init__"}
        if read := sorted(unclear & (declared | {"__init__"})):
            raise Unreadable(f"{source.file}: only running it shows {node.name}.{read[0]}")
        for name in unclear:
            values.pop(name, None)
        for name, value in own.items():
            if not isinstance(value, ast.expr):
                continue
            try:
                values[name] = literal(source, value)
            except Unreadable:
                if name in declared:
                    raise
                values.pop(name, None)
        if source.module.startswith(INTERFACES):
            declared |= _class_variables(node)
        for inner in ast.walk(node):
            match inner:
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()) if name in declared:
                    raise InputError(f"{source.file}:{inner.lineno}: {_must(node, name)}")
    return values


def _members(node: ast.ClassDef) -> tuple[Mapping[str, ast.stmt | ast.expr | Imported], set[str]]:
    """What a class's own statements bind, and the names that it binds under a condition or otherwise unclearly."""
    plain = [one for one in node.body if not isinstance(one, ast.Match) and not hasattr(one, "body")]
    plain += [one for one in node.body if isinstance(one, SCOPES)]
    own = Bindings(plain)
    nested = Bindings([one for one in node.body if one not in plain])
    if own.is_open or nested.is_open:
        raise Unreadable(f"only running it shows what {node.name} binds")
    unclear = own.unclear | nested.unclear | set(nested.names)
    unclear |= {name for name, value in own.names.items() if isinstance(value, Imported)}
    return {name: value for name, value in own.names.items() if name not in unclear}, unclear


def _class_variables(node: ast.ClassDef) -> set[str]:
    """What an interface does not call ClassVar, an instance may set from an argument."""
    marked = (one for one in node.body if isinstance(one, ast.AnnAssign) and "ClassVar" in ast.unparse(one))
    return {one.target.id for one in marked if isinstance(one.target, ast.Name)}


def _must(node: ast.ClassDef, name: str) -> str:
    return f"{node.name}.{name} is read without making an object; set it in the class body, to a literal"


def _arguments(lineage: list[Found]) -> tuple[Argument, ...]:
    docs: dict[str, str] = {}
    arguments: dict[str, Argument] = {}
    for _, node in reversed(lineage):
        assert isinstance(node, ast.ClassDef)
        docs |= argument_docs(_docstrings(node))
    for source, node in lineage:
        assert isinstance(node, ast.ClassDef)
        init = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        if init is None:
            if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
                raise Unreadable("a dataclass makes its own constructor")
            continue
        for arg, default in _parameters(init.args):
            value = None if default is None else literal(source, default)
            text = annotation_text(source, arg.annotation)
            arguments.setdefault(arg.arg, Argument(arg.arg, text, default is None, value, docs.get(arg.arg, "")))
        if init.args.kwarg is None:
            break  # without **kwargs nothing reaches the constructor above
    return tuple(arguments.values())


def _parameters(own: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """(argument, default) of every one after `self`."""
    named = [*own.posonlyargs, *own.args]
    missing: list[ast.expr | None] = [None] * (len(named) - len(own.defaults))
    yield from list(zip(named, [*missing, *own.defaults], strict=True))[1:]
    yield from zip(own.kwonlyargs, own.kw_defaults, strict=True)


def _docstrings(node: ast.ClassDef) -> list[str]:
    inits = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    return [ast.get_docstring(inits[0]) or "" if inits else "", ast.get_docstring(node) or ""]
