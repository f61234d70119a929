"""What an option accepts: checks a value, says in words what was expected, and gives the JSON schema.

One object does all three, so that an editor and the command line cannot disagree.
"""

from __future__ import annotations

import ast
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nashtune.errors import nearest

# Name -> (base, comparisons); equal to jsonargparse's own, which costs 0.1 s to import (a test compares them).
RESTRICTED: dict[str, tuple[type, tuple[tuple[str, float], ...]]] = {
    "PositiveInt": (int, ((">", 0),)),
    "NonNegativeInt": (int, ((">=", 0),)),
    "PositiveFloat": (float, ((">", 0),)),
    "NonNegativeFloat": (float, ((">=", 0),)),
    "ClosedUnitInterval": (float, ((">=", 0), ("<=", 1))),
    "OpenUnitInterval": (float, ((">", 0), ("<", 1))),
}
_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_KEYWORDS = {">": "exclusiveMinimum", ">=": "minimum", "<": "exclusiveMaximum", "<=": "maximum"}


class Mismatch(Exception):
    """A value does not fit: `expected ..., found ...`; `path` leads to the part that does not, below the value."""

    def __init__(self, text: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(text)
        self.path = path


@dataclass(frozen=True)
class Typed:
    """A value typed on the command line: the option's annotation decides whether it is read as YAML or kept as text.

    Args:
        text: As it was typed.
        value: Read as YAML.
    """

    text: str
    value: Any


class Type(ABC):
    """What an option accepts."""

    @abstractmethod
    def check(self, value: Any) -> Any:
        """The value as the class takes it (an integer becomes a float where a float is wanted).

        Raises:
            Mismatch: it does not fit.
        """

    @abstractmethod
    def expected(self) -> str:
        """In words: "a number > 0"."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """As JSON schema."""

    def _refuse(self, value: Any) -> Mismatch:
        return Mismatch(f"expected {self.expected()}, found {describe(value)}")


@dataclass(frozen=True)
class _Anything(Type):
    """No restriction: an annotation outside the vocabulary."""

    def check(self, value: Any) -> Any:
        return value.value if isinstance(value, Typed) else value

    def expected(self) -> str:
        return "anything"

    def schema(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class _Constant(Type):
    """Truth values, text or null."""

    type: type

    def check(self, value: Any) -> Any:
        if isinstance(value, Typed):
            value = value.text if self.type is str else value.value
        if self.type is type(None) and value == "none":  # the word that specs use: `kl: none`
            return None
        if not isinstance(value, self.type):
            raise self._refuse(value)
        return value

    def expected(self) -> str:
        return {bool: "true or false", str: "text"}.get(self.type, "none")

    def schema(self) -> dict[str, Any]:
        return {"type": {bool: "boolean", str: "string"}.get(self.type, "null")}


@dataclass(frozen=True)
class _Number(Type):
    """A finite number within limits."""

    type: type
    limits: tuple[tuple[str, float], ...] = ()

    def check(self, value: Any) -> Any:
        if isinstance(value, Typed):
            value = value.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refuse(value)
        if self.type is int and not isinstance(value, int):
            raise self._refuse(value)
        try:
            number = self.type(value)
        except OverflowError:
            raise self._refuse(value) from None
        if not math.isfinite(number) or not all(_COMPARE[sign](number, limit) for sign, limit in self.limits):
            raise self._refuse(value)
        return number

    def expected(self) -> str:
        kind = "a whole number" if self.type is int else "a number"
        return " ".join([kind, " and ".join(f"{sign} {limit:g}" for sign, limit in self.limits)]).strip()

    def schema(self) -> dict[str, Any]:
        bounds = {_KEYWORDS[sign]: limit for sign, limit in self.limits}
        return {"type": "integer" if self.type is int else "number", **bounds}


@dataclass(frozen=True)
class _Choice(Type):
    """One of a few literals."""

    values: tuple[Any, ...]

    def check(self, value: Any) -> Any:
        candidates = (value.value, value.text) if isinstance(value, Typed) else (value,)
        for candidate in candidates:
            for known in self.values:
                if candidate == known and type(candidate) is type(known):
                    return known
        hint = ""
        if isinstance(candidates[-1], str):
            hint = nearest(candidates[-1], [v for v in self.values if isinstance(v, str)]).partition(" (known")[0]
        raise Mismatch(f"expected {self.expected()}, found {describe(value)}{hint}")

    def expected(self) -> str:
        return " or ".join(describe(value) for value in self.values)

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


@dataclass(frozen=True)
class _Items(Type):
    """A list; with `fixed`, of that many items, each of its own type."""

    item: Type
    fixed: tuple[Type, ...] | None = None

    def check(self, value: Any) -> Any:
        if isinstance(value, Typed):
            value = value.value
        wrong_length = self.fixed is not None and isinstance(value, (list, tuple)) and len(value) != len(self.fixed)
        if not isinstance(value, (list, tuple)) or wrong_length:
            raise self._refuse(value)
        types = self.fixed if self.fixed is not None else (self.item,) * len(value)
        return [_below(type_, part, i) for i, (type_, part) in enumerate(zip(types, value, strict=True))]

    def expected(self) -> str:
        if self.fixed is None:
            return "a list" if isinstance(self.item, _Anything) else f"a list, each item {self.item.expected()}"
        return f"a list of {len(self.fixed)}: {', '.join(type_.expected() for type_ in self.fixed)}"

    def schema(self) -> dict[str, Any]:
        if self.fixed is None:
            return {"type": "array", "items": self.item.schema()}
        size = len(self.fixed)
        items = [type_.schema() for type_ in self.fixed]
        return {"type": "array", "items": items, "minItems": size, "maxItems": size}


@dataclass(frozen=True)
class _Table(Type):
    """A mapping with text keys."""

    item: Type

    def check(self, value: Any) -> Any:
        if isinstance(value, Typed):
            value = value.value
        if not isinstance(value, Mapping):
            raise self._refuse(value)
        return {key: _below(self.item, part, key) for key, part in value.items()}

    def expected(self) -> str:
        return "a mapping"

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.item.schema()}


@dataclass(frozen=True)
class _Either(Type):
    """One of several types; the first that fits."""

    options: tuple[Type, ...]

    def check(self, value: Any) -> Any:
        wrong: list[Mismatch] = []
        for option in self._order(value):
            try:
                return option.check(value)
            except Mismatch as mismatch:
                wrong.append(mismatch)
        # A mapping or list that fits but for one part: that part's own message says more.
        deeper = next((mismatch for mismatch in wrong if mismatch.path), None)
        options = [option for option in self.options if option != _Constant(type(None))]
        raise deeper or (wrong[self._order(value).index(options[0])] if len(options) == 1 else self._refuse(value))

    def _order(self, value: Any) -> Sequence[Type]:
        # "5" typed for `str | int` is the number: text takes whatever nothing else takes. The word `none` is null
        # unless text is accepted, too.
        takes_text = _Constant(str) in self.options
        if isinstance(value, Typed):
            return sorted(self.options, key=lambda option: option == _Constant(str))
        return sorted(
            self.options, key=lambda option: takes_text and option == _Constant(type(None)) and value == "none"
        )

    def expected(self) -> str:
        return " or ".join(option.expected() for option in self.options)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [option.schema() for option in self.options]}


def _below(type_: Type, value: Any, key: str | int) -> Any:
    try:
        return type_.check(value)
    except Mismatch as mismatch:
        raise Mismatch(str(mismatch), (key, *mismatch.path)) from None


def describe(value: Any) -> str:
    """A value as YAML writes it, for messages: true, none, 'text', [1, 2]."""
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
    if isinstance(value, str) and value[:1] == "0" and value.isdecimal():
        return f"'{value}' (a number with leading zeros is text)"
    return repr(value)


