"""Importing a component's class, with messages that say what to put right."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.plugins.component import KINDS


def said(error: BaseException) -> str:
    """`ModuleNotFoundError: No module named 'x'`, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def split_target(target: str) -> tuple[str, str]:
    """("package.module", "Class") of "package.module:Class" or "package.module.Class".

    Raises:
        InputError: it is neither.
    """
    module, _, name = target.partition(":") if ":" in target else target.rpartition(".")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"'{target}' is not the place of a class; write package.module:Class or package.module.Class")
    return module, name


def load_object(module: str, name: str) -> Any:
    """Import `module` and take `name` from it.

    Raises:
        InputError: the module cannot be imported (the cause is chained), or has no such name.
    """
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"{module}:{name} cannot be imported: {said(error)}") from error
    try:
        return getattr(loaded, name)
    except AttributeError as error:
        public = [known for known, value in vars(loaded).items() if isinstance(value, type)]
        raise InputError(f"module {module} has no class '{name}'{nearest(name, public)}") from error


def load_class(target: str, kind: str) -> type:
    """Import a class and check that it implements the interface of its kind in full.

    Raises:
        InputError: it cannot be imported, is no class, or does not implement the interface.
    """
    cls = load_object(*split_target(target))
    if not isinstance(cls, type):
        raise InputError(f"{target} is a {type(cls).__name__}, not a class")
    interfaces = tuple(load_object(*split_target(interface)) for interface in KINDS[kind])
    if not issubclass(cls, interfaces):
        wanted = " or ".join(f"nashtune.interfaces.{interface.__name__}" for interface in interfaces)
        raise InputError(f"{target} is not a {kind}: it must be a subclass of {wanted}")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise InputError(f"{target} does not implement {missing}, which a {kind} must")
    return cls
