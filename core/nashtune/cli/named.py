"""What a parsed configuration names, looked at before anything of it is built.

The parser takes a function where an argument is typed as a callable, and calls it with the `init_args` beside it: any
function of an allowed package, with arguments of the file's choice.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import Namespace
from jsonargparse._util import import_object  # the parser's own reading of a class path

from nashtune.errors import InputError
from nashtune.spec.loader import KeyPath
from nashtune.spec.runtrainer import FUNCTION_PACKAGES, TYPE_PACKAGES
from nashtune.trust import IMPORT, grants, within


def refuse_calls(config: Any) -> None:
    """Refuse what would be called and is no class, and functions that an argument would be given.

    Args:
        config: As the parser returns it: plain values, functions, classes, and class paths with their arguments.

    Raises:
        InputError: it names such a function, and the command line does not allow its package.
    """
    for path, value in _walk(config, ()):
        where = ".".join(map(str, path))
        if path and path[-1] == "class_path" and isinstance(value, str):
            _refuse_no_class(where, value)
        elif callable(value) and not inspect.isclass(value):
            module = getattr(value, "__module__", None) or type(value).__module__
            if not _within(module, (*FUNCTION_PACKAGES, *grants().imports)):
                name = getattr(value, "__qualname__", type(value).__qualname__)
                raise InputError(
                    f"{where}: the function {module}.{name} would be called; allowed: functions of "
                    f"{', '.join(FUNCTION_PACKAGES)}, and what you trust: add `{IMPORT} {module.partition('.')[0]}` "
                    "to the command (it cannot be said in a file)"
                )


def _refuse_no_class(where: str, target: str) -> None:
    if _within(target, grants().imports):
        return
    try:
        found = import_object(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{where}: {target} is not found: {' '.join(str(error).split())}") from error
    if not inspect.isclass(found):
        raise InputError(
            f"{where}: {target} is no class, and would be called with the values beside it; name a class, or add "
            f"`{IMPORT} {target.partition('.')[0]}` to the command if you trust it (it cannot be said in a file)"
        )
    if _within(found.__module__, TYPE_PACKAGES) and not _within(found.__module__, grants().imports):
        raise InputError(f"{where}: {target} is built nowhere in a run file; name it where a class itself is asked for")


def _walk(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """(key path, value) of everything that is no mapping and no list."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _walk(part, (*path, key))
    elif isinstance(value, list | tuple | set | frozenset):
        for number, part in enumerate(value):
            yield from _walk(part, (*path, number))
    else:
        yield path, value


def _within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(within(module, prefix) for prefix in prefixes)
