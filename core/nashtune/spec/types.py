"""What an option accepts: checks a value, says in words what was expected, and gives the JSON schema.

One object does all three, so that an editor and the command line cannot disagree.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nashtune.errors import nearest

_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_KEYWORDS = {">": "exclusiveMinimum", ">=": "minimum", "<": "exclusiveMaximum", "<=": "maximum"}


class Mismatch(Exception):
    """A value does not fit: `expected ..., found ...`; `path` leads to the part that does not, below the value."""

    def __init__(self, text: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(text)
        self.path = path


@dataclass(frozen=True)
class Typed:
    """A value typed on the command line: the option's type decides whether it is read as YAML or kept as text.

    Args:
        text: As it was typed.
        value: Read as YAML.
    """

    text: str
    value: Any


class Type(ABC):
    """What an option accepts."""

    def check(self, value: Any) -> Any:
        """The value as the class takes it (a whole number becomes a float where a float is wanted).

        Raises:
            Mismatch: it does not fit.
        """
        return self._check(value.value if isinstance(value, Typed) else value)

    def expected(self) -> str:
        """In words: "a number > 0"."""
        return self._expected()

    def schema(self) -> dict[str, Any]:
        """As JSON schema, draft 7."""
        return self._schema()

    @abstractmethod
    def _check(self, value: Any) -> Any: ...

    @abstractmethod
    def _expected(self) -> str: ...

    @abstractmethod
    def _schema(self) -> dict[str, Any]: ...

    def _refuse(self, value: Any) -> Mismatch:
        return Mismatch(f"expected {self._expected()}, found {describe(value)}")


@dataclass(frozen=True)
class Anything(Type):
    """No restriction: an annotation outside the vocabulary."""

    def _check(self, value: Any) -> Any:
        return value

    def _expected(self) -> str:
        return "anything"

    def _schema(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Truth(Type):
    """true or false."""

    def _check(self, value: Any) -> Any:
        if not isinstance(value, bool):
            raise self._refuse(value)
        return value

    def _expected(self) -> str:
        return "true or false"

    def _schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(Type):
    """Text; what was typed on the command line stays as it was typed."""

    def check(self, value: Any) -> Any:
        """The text."""
        return self._check(value.text if isinstance(value, Typed) else value)

    def _check(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise self._refuse(value)
        return value

    def _expected(self) -> str:
        return "text"

    def _schema(self) -> dict[str, Any]:
        return {"type": "string"}


@dataclass(frozen=True)
class Nothing(Type):
    """Null, or the word that specs use for it: none."""

    def _check(self, value: Any) -> Any:
        if value is not None and value != "none":
            raise self._refuse(value)
        return None

    def _expected(self) -> str:
        return "none"

    def _schema(self) -> dict[str, Any]:
        return {"enum": [None, "none"]}


@dataclass(frozen=True)
class Number(Type):
    """A finite number within limits, whole or not."""

    type: type
    limits: tuple[tuple[str, float], ...] = ()

    def _check(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int if self.type is int else (int, float)):
            raise self._refuse(value)
        try:
            number = self.type(value)
        except OverflowError:
            raise self._refuse(value) from None
        if not math.isfinite(number) or not all(_COMPARE[sign](number, limit) for sign, limit in self.limits):
            raise self._refuse(value)
        return number

    def _expected(self) -> str:
        kind = "a whole number" if self.type is int else "a number"
        return " ".join([kind, " and ".join(f"{sign} {limit:g}" for sign, limit in self.limits)]).strip()

    def _schema(self) -> dict[str, Any]:
        bounds = {_KEYWORDS[sign]: limit for sign, limit in self.limits}
        return {"type": "integer" if self.type is int else "number", **bounds}


@dataclass(frozen=True)
class Choice(Type):
    """One of a few literals."""

    values: tuple[Any, ...]

    def check(self, value: Any) -> Any:
        """The literal itself."""
        for candidate in (value.value, value.text) if isinstance(value, Typed) else (value,):
            for known in self.values:
                if candidate == known and type(candidate) is type(known):
                    return known
        return self._check(value.value if isinstance(value, Typed) else value)

    def _check(self, value: Any) -> Any:
        words = [known for known in self.values if isinstance(known, str)]
        hint = nearest(value, words).partition(" (known")[0] if isinstance(value, str) else ""
        raise Mismatch(f"expected {self._expected()}, found {describe(value)}{hint}")

    def _expected(self) -> str:
        return " or ".join(describe(value) for value in self.values)

    def _schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


def describe(value: Any) -> str:
    """A value as messages show it: true, nothing, 'text', [1, 2]."""
    if isinstance(value, Typed):
        return describe(value.value)
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(describe(part) for part in value)}]"
    if isinstance(value, str) and value[:1] == "0" and value[1:].isdecimal():
        return f"'{value}' (a number with leading zeros is text)"
    return repr(value)
