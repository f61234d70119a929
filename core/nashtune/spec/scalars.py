"""Which YAML words are numbers, truths or nothing, and what they are in Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

TAG = "tag:yaml.org,2002:"
LONGEST = 1000
"""Characters of a whole number."""
_NULL = re.compile(r"^(?:null|Null|NULL|~|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^(?:[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
PATTERNS = {TAG + "null": _NULL, TAG + "bool": _BOOL, TAG + "int": _INT, TAG + "float": _FLOAT}
"""Tag -> what is read as one."""


def _whole(text: str) -> int:
    if len(text) > LONGEST:  # Python reads hexadecimal ones of any length, and then cannot print them
        raise OverflowError(f"a number of {len(text)} characters is too long; {LONGEST} is the most")
    return int(text, 0)


SCALARS: dict[str, Callable[[str], Any]] = {
    TAG + "str": str,
    TAG + "null": lambda text: None,
    TAG + "bool": lambda text: text.lower() == "true",
    TAG + "int": _whole,
    TAG + "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}
"""Tag -> what makes the value; `ValueError` for what is none, `OverflowError` for a number that is too long."""
