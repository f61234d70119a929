"""Files of conformance vectors: JSON with a list `cases`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from nashtune.errors import InputError, nearest

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def load_cases(file: Traversable) -> list[Mapping[str, Any]]:
    """The cases of a vector file.

    Raises:
        InputError: no such file, no JSON, no cases.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; a vector file is JSON with a list `cases`")
    try:
        data = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_no_duplicates)
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text ({error})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}: broken JSON ({error.msg})") from error
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("cases"), list) or not data["cases"]:
        raise InputError(f"{file}: expected an object with a non-empty list `cases`")
    for key in data:
        if key not in ("cases", "source"):
            raise InputError(f"{file}: '{key}' is not a key of a vector file{nearest(key, ['cases', 'source'])}")
    for i, case in enumerate(data["cases"]):
        if not isinstance(case, dict):
            raise InputError(f"{file}: cases[{i}] is not an object")
    return cast("list[Mapping[str, Any]]", data["cases"])


def _no_duplicates(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in items:
        if key in found:
            raise InputError(f"'{key}' is given twice")
        found[key] = value
    return found
