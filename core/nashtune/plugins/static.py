"""What a spec needs to know of a component's class, read from its source: the class's module is not imported.

Importing a loss means importing torch, which costs seconds; `check`, `show` and `schema` need only its arguments, their
documentation and a few literal class attributes.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from typing import Any

from nashtune.errors import InputError
from nashtune.plugins.annotations import annotation_text
from nashtune.plugins.classinfo import Argument, ClassInfo, argument_docs
from nashtune.plugins.inspected import inspect_class
from nashtune.plugins.loading import load_class, split_target
from nashtune.plugins.lookup import Found, literal, look_up
from nashtune.plugins.scan import scan_package
from nashtune.plugins.source import OPAQUE, Source, Unreadable, find_module, read_module

__all__ = ["Argument", "ClassInfo", "class_info", "load_class", "scan_package"]

INTERFACES = "nashtune.interfaces"


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
        found = look_up(source, name) if name in source.names or source.stars else None
        if not isinstance(found, Found) or not isinstance(found.node, ast.ClassDef):
            raise Unreadable(f"{module} defines no class {name}")
        return _read_class(_shadow(found.source, found.node))
    except Unreadable:
        return inspect_class(module, name)
    except SyntaxError as error:
        raise InputError(f"{target} cannot be read: {error}") from error


@functools.lru_cache(maxsize=512)
def _shadow(source: Source, node: ast.ClassDef) -> type:
    """An empty class with the same ancestry, so that Python itself works out the order of inheritance."""
    bases: list[type] = []
    for base in node.bases:
        plain = base.value if isinstance(base, ast.Subscript) else base
        found = look_up(source, ast.unparse(plain))
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
            match stmt:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    pass
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    pass
                case ast.FunctionDef(name=name) if name in declared:
                    raise InputError(f"{source.file}:{stmt.lineno}: {_must(node, name)}")
                case _:
                    continue
            try:
                values[name] = literal(source, value)
            except Unreadable:
                if name in declared:
                    raise
                values.pop(name, None)
            # what an interface does not call ClassVar, an instance may set from an argument
            if source.module.startswith(INTERFACES) and "ClassVar" in ast.unparse(stmt):
                declared.add(name)
        for inner in ast.walk(node):
            match inner:
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()) if name in declared:
                    raise InputError(f"{source.file}:{inner.lineno}: {_must(node, name)}")
    return values


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
        own = init.args
        named = [*own.posonlyargs, *own.args]
        defaults = [*[None] * (len(named) - len(own.defaults)), *own.defaults]
        for arg, default in (
            *list(zip(named, defaults, strict=True))[1:],
            *zip(own.kwonlyargs, own.kw_defaults, strict=True),
        ):
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
