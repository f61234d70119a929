"""Whether the functions of a component's class can be called as the interface says they are; the class is imported."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType

from nashtune.errors import InputError
from nashtune.plugins.component import KINDS
from nashtune.plugins.loading import load_object, split_target

KEYWORD = inspect.Parameter.KEYWORD_ONLY
VARIOUS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def interface_of(kind: str, cls: type) -> type:
    """The interface of its kind that a class implements."""
    interfaces: list[type] = [load_object(*split_target(interface)) for interface in KINDS[kind]]
    return next(interface for interface in interfaces if issubclass(cls, interface))


def interface_functions(interface: type) -> dict[str, FunctionType]:
    """The functions of an interface that the framework calls, by name."""
    found: dict[str, FunctionType] = {}
    for cls in interface.__mro__:
        for name, value in vars(cls).items():
            called = isinstance(value, FunctionType) and (not name.startswith("_") or name == "__call__")
            if called and cls.__module__.startswith("nashtune.interfaces"):
                found.setdefault(name, value)
    return found


def signature_problem(cls: type, kind: str) -> str:
    """What is wrong with the first function that cannot be called as it will be; "" where none is.

    Args:
        cls: A class that implements the interface of its kind.
        kind: Of component.
    """
    interface = interface_of(kind, cls)
    for name, wanted in interface_functions(interface).items():
        shown = inspect.signature(wanted)
        own = inspect.getattr_static(cls, name, None)
        if own is None:  # registered, and no subclass
            missing = _plain(name, shown)
            return f"{cls.__name__} has no {missing}; a subclass of nashtune.interfaces.{interface.__name__} has one"
        if own is wanted or not isinstance(own, FunctionType):
            continue
        signature = inspect.signature(own)
        if not all(_takes(signature, call) for call in _calls(shown)):
            plain = inspect.unwrap(own)  # a decorator's wrapper lies elsewhere
            place = f"{inspect.getsourcefile(plain) or plain.__module__}:{plain.__code__.co_firstlineno}"
            return f"{place}: {_plain(name, signature)} is called as {_plain(name, shown)}; give it these arguments"
    return ""


def refuse_other_signatures(cls: type, kind: str, who: str) -> None:
    """Refuse a class whose functions cannot be called as the interface says.

    Raises:
        InputError: one cannot; names both forms and the place.
    """
    if problem := signature_problem(cls, kind):
        raise InputError(f"{who}: {problem}")


def _calls(shown: inspect.Signature) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(positional, named) arguments of the shortest and the longest call that the interface allows."""
    given = [one for one in shown.parameters.values() if one.kind not in VARIOUS]
    for called in ([one for one in given if one.default is one.empty], given):
        named = tuple(one.name for one in called if one.kind == KEYWORD)
        yield len(called) - len(named), named


def _takes(signature: inspect.Signature, call: tuple[int, tuple[str, ...]]) -> bool:
    positional, named = call
    try:
        signature.bind(*range(positional), **dict.fromkeys(named))
    except TypeError:
        return False
    return True


def _plain(name: str, signature: inspect.Signature) -> str:
    """`compare(self, prompts, first, second)`, without annotations."""
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return f"{name}{signature.replace(parameters=bare, return_annotation=signature.empty)}"
