"""Whether the class that a plugin names is there: by the source, and by importing it before it is refused.

A component's module is imported when it is used, so a plugin loads although its class is missing. What only importing
would show (a compiled module, a base class that cannot be followed) is taken for good; where the source says no, the
class has the last word, because a text can be wrong about what its module does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from nashtune.errors import InputError
from nashtune.plugins.abstract import missing_functions
from nashtune.plugins.component import KINDS, Component
from nashtune.plugins.loading import load_class, said, split_target
from nashtune.plugins.record import PluginRecord
from nashtune.plugins.source import Source, Unreadable, find_module, read_module
from nashtune.plugins.static import ancestry

NO_MODULE = "there is no module"


def looked_at(records: Iterable[PluginRecord]) -> list[PluginRecord]:
    """The records of plugins, "refused" where a class that one names is not there."""
    return [_looked_at(record) for record in records]


def _looked_at(record: PluginRecord) -> PluginRecord:
    problems = {component: problem for component in record.components if (problem := problem_of(component))}
    if not problems:
        return record
    found = replace(record, components=[one for one in record.components if one not in problems])
    for component, problem in problems.items():
        found.complain(f"{component.kind} '{component.name}': {problem}", "refused")
    return found


def problem_of(component: Component) -> str:
    """Why a component's class cannot be what its plugin says, or "". Imported only where its source says so."""
    return problem_at(component.target, component.kind)


def problem_at(target: str, kind: str) -> str:
    """`problem_of` the class at "package.module:Class", which a spec may name without a plugin."""
    found = _by_source(target, kind)
    if not found:
        return ""
    try:
        load_class(target, kind)
    except InputError as error:
        return found if isinstance(error.__cause__, ModuleNotFoundError) and NO_MODULE in found else str(error)
    return ""


def _by_source(target: str, kind: str) -> str:
    module, name = split_target(target)
    try:
        if find_module(module) is None:
            return "" if _only_by_import(module) else f"{NO_MODULE} {module}"
        source = read_module(module)
        if missing := next(_missing_imports(source, set()), ""):
            return missing
        if source.lacks(name):
            return f"module {module} has no class '{name}'"
        bases = ancestry(target)
    except SyntaxError as error:
        return f"{module} cannot be read: {said(error)}"
    except Unreadable:
        return ""
    if not set(KINDS[kind]) & set(bases):
        return f"{target} is no {kind}"
    return ", ".join(missing_functions(target))


def _only_by_import(module: str) -> bool:
    """Whether it lies in a namespace package, whose folders are known once its parents are imported."""
    parent, _, last = module.rpartition(".")
    above = find_module(parent) if parent else None
    if above is None:
        return bool(parent) and _only_by_import(parent)
    return any(Path(folder, last).is_dir() for folder in above.submodule_search_locations or ())


def _missing_imports(source: Source, seen: set[str]) -> Iterator[str]:
    """What a module imports first of all and is not there; modules of its own package are followed."""
    seen.add(source.module)
    own = source.module.partition(".")[0]
    for statement in source.tree.body:  # within `try` and `if` an import may fail on purpose
        match statement:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(base), level=level):
                modules = [_absolute(source, base, level)]
            case _:
                continue
        for module in modules:
            top = module.partition(".")[0]
            if find_module(module if top == own else top) is not None:
                if top == own and module not in seen:
                    yield from _missing_imports(read_module(module), seen)
            elif not (top == own and _only_by_import(module)):
                ask = "" if top == own else "; is its package installed?"
                yield f"{source.file}:{statement.lineno}: {NO_MODULE} {module}{ask}"


def _absolute(source: Source, base: str, level: int) -> str:
    """`base` of `from ..base import x`, as its module is called from outside; level 0 is that already."""
    if level == 0:
        return base
    parts = source.module.split(".")
    above = level - 1 if Path(source.file).stem == "__init__" else level
    return ".".join([*parts[: len(parts) - above], base])
