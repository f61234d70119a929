"""The type of an annotation that was read as text, so that the class itself need not be imported.

The vocabulary is what a component's constructor may use: `bool`, `int`, `float`, `str`, `None`, `Any`, `X | Y`,
`Optional`, `Union`, `Literal`, `list`, `tuple`, `dict` and their abstract names, and the restricted types of
`jsonargparse.typing`. Any other name is asked of a lookup (a dataclass, for nested settings) and otherwise left to the
class itself, which sees the value when it is built.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from nashtune.spec.containers import Either, Items, Table
from nashtune.spec.types import Anything, Choice, Nothing, Number, Text, Truth, Type

# Name -> (base, comparisons); equal to jsonargparse's own, which costs 0.1 s to import (a test compares them).
RESTRICTED: dict[str, tuple[type, tuple[tuple[str, float], ...]]] = {
    "PositiveInt": (int, ((">", 0),)),
    "NonNegativeInt": (int, ((">=", 0),)),
    "PositiveFloat": (float, ((">", 0),)),
    "NonNegativeFloat": (float, ((">=", 0),)),
    "ClosedUnitInterval": (float, ((">=", 0), ("<=", 1))),
    "OpenUnitInterval": (float, ((">", 0), ("<", 1))),
}
_PLAIN: dict[str, Type] = {
    "int": Number(int),
    "float": Number(float),
    "str": Text(),
    "bool": Truth(),
    **{name: Items(Anything()) for name in ("list", "List", "Sequence", "tuple", "Tuple")},
    **{name: Table(Anything()) for name in ("dict", "Dict", "Mapping")},
    **{name: Number(*limits) for name, limits in RESTRICTED.items()},
}

Lookup = Callable[[str], "Type | None"]


def parse(annotation: str, lookup: Lookup = lambda name: None) -> Type:
    """The type of an annotation such as `"PositiveFloat | None"`.

    Args:
        annotation: Source text; "" stands for none.
        lookup: Gives the type of a name outside the vocabulary, or None.
    """
    try:
        return _type(ast.parse(annotation.strip() or "Any", mode="eval").body, lookup)
    except SyntaxError:
        return Anything()


def _type(node: ast.expr, lookup: Lookup) -> Type:
    match node:
        case ast.Constant(value=None):
            return Nothing()
        case ast.Constant(value=str(text)):
            return parse(text, lookup)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _either([_type(left, lookup), _type(right, lookup)])
        case ast.Subscript(value=generic, slice=inner):
            parts = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            return _generic(_name(generic), parts, lookup)
        case ast.Call(func=func, args=[_, ast.Name(id=base), limits, *_]) if _name(func) == "restricted_number_type":
            return _restricted(base, ast.literal_eval(limits))
        case ast.Name() | ast.Attribute():
            name = _name(node)
            return _PLAIN.get(name) or lookup(name) or Anything()
    return Anything()


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _generic(name: str, parts: list[ast.expr], lookup: Lookup) -> Type:
    if name == "Literal":
        try:
            return Choice(tuple(ast.literal_eval(part) for part in parts))
        except ValueError:
            return Anything()
    types = [_type(part, lookup) for part in parts]
    match name:
        case "Optional":
            return _either([*types, Nothing()])
        case "Union":
            return _either(types)
        case "Annotated" | "Final":
            return types[0]
        case "list" | "List" | "Sequence":
            return Items(types[0])
        case "tuple" | "Tuple" if isinstance(parts[-1], ast.Constant) and parts[-1].value is Ellipsis:
            return Items(types[0])
        case "tuple" | "Tuple":
            return Items(Anything(), tuple(types))
        case "dict" | "Dict" | "Mapping":
            return Table(types[-1])
    return Anything()


def _restricted(base: str, limits: Any) -> Type:
    limits = [limits] if isinstance(limits, tuple) else limits
    return Number(int if base == "int" else float, tuple((sign, limit) for sign, limit in limits))


def _either(types: Sequence[Type]) -> Type:
    flat = [part for type_ in types for part in (type_.options if isinstance(type_, Either) else (type_,))]
    return Either(tuple(dict.fromkeys(flat)))
