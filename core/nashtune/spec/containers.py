"""Types made of other types: lists, mappings and alternatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nashtune.spec.types import Anything, Mismatch, Nothing, Text, Type, Typed


@dataclass(frozen=True)
class Items(Type):
    """A list; with `fixed`, of that many items, each of its own type."""

    item: Type
    fixed: tuple[Type, ...] | None = None

    def _check(self, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or (self.fixed is not None and len(value) != len(self.fixed)):
            raise self._refuse(value)
        types = self.fixed if self.fixed is not None else (self.item,) * len(value)
        return [_below(type_, part, i) for i, (type_, part) in enumerate(zip(types, value, strict=True))]

    def _expected(self) -> str:
        if self.fixed is None:
            return "a list" if isinstance(self.item, Anything) else f"a list, each item {self.item.expected()}"
        return f"a list of {len(self.fixed)}: {', '.join(type_.expected() for type_ in self.fixed)}"

    def _schema(self) -> dict[str, Any]:
        if self.fixed is None:
            return {"type": "array", "items": self.item.schema()}
        items = [type_.schema() for type_ in self.fixed]
        return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}


@dataclass(frozen=True)
class Table(Type):
    """A mapping with text keys."""

    item: Type

    def _check(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise self._refuse(value)
        return {key: _below(self.item, part, key) for key, part in value.items()}

    def _expected(self) -> str:
        return "a mapping"

    def _schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.item.schema()}


@dataclass(frozen=True)
class Either(Type):
    """One of several types; the first that fits, text last: `5` typed for `str | int` is the number."""

    options: tuple[Type, ...]

    def check(self, value: Any) -> Any:
        """The value as the first fitting type has it."""
        # Text takes anything that was typed, so it comes last; and where text is accepted, `none` from a file is text.
        last = Text() if isinstance(value, Typed) or Text() not in self.options else Nothing()
        options: Sequence[Type] = sorted(self.options, key=lambda option: option == last)
        wrong = []
        for option in options:
            try:
                return option.check(value)
            except Mismatch as mismatch:
                wrong.append(mismatch)
        deeper = next((mismatch for mismatch in wrong if mismatch.path), None)  # right but for one part: say which
        raise deeper or self._refuse(value)

    def _check(self, value: Any) -> Any:
        return self.check(value)

    def _expected(self) -> str:
        return " or ".join(option.expected() for option in self.options)

    def _schema(self) -> dict[str, Any]:
        return {"anyOf": [option.schema() for option in self.options]}


def _below(type_: Type, value: Any, key: str | int) -> Any:
    try:
        return type_.check(value)
    except Mismatch as mismatch:
        raise Mismatch(str(mismatch), (key, *mismatch.path)) from None
