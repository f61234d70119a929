"""Importing a component's class, with messages that say what to put right."""

from __future__ import annotations

import importlib
from pathlib import Path
from traceback import walk_tb
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.plugins.component import KINDS, article
from nashtune.plugins.lacking import lacking


def said(error: BaseException) -> str:
    """`ModuleNotFoundError: No module named 'x'`, on one line; of a syntax error with the whole path of its file."""
    name = type.__dict__["__name__"].__get__(type(error))  # a metaclass has no say in it
    try:
        if isinstance(error, SyntaxError) and error.filename:
            return f"{name}: {error.msg} ({error.filename}:{error.lineno})"
        return " ".join(f"{name}: {error}".split())
    except KeyboardInterrupt:
        raise
    except BaseException:  # its text is code of a plugin, too
        return f"{name}: (no text: its __str__ raises an exception, too)"


def raised_at(error: BaseException, module: str) -> str:
    """For the end of a message about importing `module`: ` (file:line)`, where its package had come to, or ""."""
    if isinstance(error, SyntaxError):  # says its own place
        return ""
    top = module.partition(".")[0]
    places = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in walk_tb(BaseException.__dict__["__traceback__"].__get__(error))
        if isinstance(name := frame.f_globals.get("__name__"), str) and name.partition(".")[0] == top
    ]
    return f" ({places[-1]})" if places else ""


def lies_here(module: str) -> str:
    """For the end of a message about a module that was not found: it lies in the current folder, and how it is found.

    The installed command does not look there, as `python` does.
    """
    top = module.partition(".")[0]
    if not Path(f"{top}.py").is_file() and not Path(top, "__init__.py").is_file():
        return ""
    return (
        f". {top} lies in the current folder, where the installed command does not look: write PYTHONPATH=. in front "
        "of it"
    )


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
        raise InputError(f"{module}:{name} cannot be imported: {said(error)}{raised_at(error, module)}") from error
    try:
        return getattr(loaded, name)
    except AttributeError as error:
        own = [known for known, value in vars(loaded).items() if isinstance(value, type) and _within(value, module)]
        raise InputError(f"module {module} has no class '{name}'{nearest(name, own)}") from error


def _within(cls: type, module: str) -> bool:
    """Whether a class is of a module or of the package's other modules, and not one that it imports from elsewhere."""
    return cls.__module__ == module or cls.__module__.startswith(f"{module}.")


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
        raise InputError(f"{target} is not {article(kind)}: it must be a subclass of {wanted}")
    if missing := lacking(cls, kind):
        raise InputError(f"{target} {missing}")
    return cls
