"""What every component's class says of itself: documentation, types of its options, class attributes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import FunctionType
from typing import Any, get_args

from nashtune.interfaces.batch import RowKind
from nashtune.plugins.signatures import interface_functions, interface_of, signature_problem
from nashtune.plugins.static import class_info
from nashtune.spec.containers import Either
from nashtune.spec.settings import argument_type
from nashtune.spec.types import Anything, Type
from nashtune.testing.contract import ContractError, require
from nashtune.testing.subject import Subject

ALLOWED: dict[str, Mapping[str, tuple[Any, ...]]] = {
    "loss": {
        "rows": get_args(RowKind),
        "reads": ("logprobs", "scores"),
        "mean_over": ("rows", "tokens"),
        "critic_init": ("zero", "reward_model"),
    },
    "reference": {"snapshot": (None, "start", "previous")},
}
"""Kind -> class attribute -> what it may be."""
SECTIONS = ("oracle", "sampler", "pairing")
"""What a schedule's `reads` may name."""
CLOSE = 0.8
"""Names this alike (of 1) are taken for misspelt."""
REPLACED = {("kl", "needs_rollouts"): "rows = ('rollouts',)"}
"""Class attributes of earlier versions, and what is written in their place."""


def check_class(subject: Subject) -> None:
    """Check what is read from a component's source, and the form of its functions.

    Raises:
        ContractError: a summary, an argument's line, an annotation, an attribute or a function is missing or wrong.
    """
    info, who = subject.info, subject.who
    require(bool(info.summary), who, "documented", f"{info.name} has no docstring")
    for argument in info.arguments:
        require(bool(argument.doc), who, "documented", f"the argument '{argument.name}' has no line under `Args:`")
        type_ = argument_type(argument, info.module)
        text = argument.annotation or "nothing"
        require(not _unknown(type_, argument.annotation), who, "typed", f"'{argument.name}' is annotated with {text}")
    _check_attributes(subject)
    problem = signature_problem(subject.cls, subject.kind)
    require(not problem, who, "functions", problem)


def check_names(subject: Subject, rule: str, attribute: str) -> None:
    """Check that a class attribute with names of arguments names some.

    Raises:
        ContractError: it names something else.
    """
    named = getattr(subject.cls, attribute)
    known = {argument.name for argument in subject.info.arguments}
    for name in (named,) if isinstance(named, str) else named or ():
        shown = ", ".join(sorted(known)) or "none"
        require(name in known, subject.who, rule, f"{attribute} names '{name}', and its arguments are {shown}")


def _unknown(type_: Type, annotation: str) -> bool:
    """Whether an annotation says nothing that could be checked."""
    if isinstance(type_, Either):
        return any(_unknown(option, annotation) for option in type_.options)
    return isinstance(type_, Anything) and annotation != "Any"


def _check_attributes(subject: Subject) -> None:
    defaults = interface_attributes(subject.kind, subject.cls)
    for name, default in defaults.items():
        value = getattr(subject.cls, name)
        allowed = ALLOWED.get(subject.kind, {}).get(name)
        said = f"{name} is {value!r}"
        if allowed is not None:
            _fits(subject, value in allowed, f"{said}; it may be {' or '.join(map(repr, allowed))}")
        elif isinstance(default, bool):
            _fits(subject, isinstance(value, bool), f"{said}; it is True or False")
        elif isinstance(default, int):
            whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
            _fits(subject, whole, f"{said}; it is a whole number > 0")
        elif isinstance(default, tuple):
            texts = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
            _fits(subject, texts, f"{said}; it is a tuple of names, such as ('ref',)")
        else:
            _fits(subject, value is None or isinstance(value, str), f"{said}; it is a name or None")
        literal = subject.info.attributes.get(name, default)
        _fits(subject, literal == value, f"{said} when it runs, but its source says {literal!r}")
    if subject.kind == "schedule":
        reads = subject.cls.reads  # type: ignore[attr-defined]
        _fits(subject, set(reads) <= set(SECTIONS), f"reads is {reads!r}; it names some of {', '.join(SECTIONS)}")
    if subject.kind == "kl":
        rows, kinds = subject.cls.rows, get_args(RowKind)  # type: ignore[attr-defined]
        _fits(subject, set(rows) <= set(kinds), f"rows is {rows!r}; it names some of {', '.join(kinds)}")
    _refuse_misspelt(subject, tuple(defaults))


def _refuse_misspelt(subject: Subject, known: tuple[str, ...]) -> None:
    """An attribute or function under another name is used by nobody, and nobody says so."""
    interface = interface_of(subject.kind, subject.cls)
    functions = interface_functions(interface)
    for cls in subject.cls.__mro__:
        if cls.__module__.startswith("nashtune.interfaces"):
            continue
        for name, value in vars(cls).items():
            if name.startswith("_") or hasattr(interface, name):
                continue
            if isinstance(value, FunctionType):
                guess = difflib.get_close_matches(name, functions, n=1, cutoff=CLOSE)
                # where the function itself is there, such as `score` beside `scores`, it is a part of it
                if guess and getattr(subject.cls, guess[0]) is functions[guess[0]]:
                    said = f"{cls.__name__}.{name} is called by nobody; did you mean '{guess[0]}'?"
                    raise ContractError(subject.who, "functions", said)
                continue
            if callable(value) or hasattr(value, "__get__"):
                continue
            said = f"{cls.__name__}.{name} is read by nobody"
            if now := REPLACED.get((subject.kind, name)):
                raise ContractError(subject.who, "attributes", f"{said}; write {now} in its place")
            guess = difflib.get_close_matches(name, known, n=1, cutoff=CLOSE)
            if guess:
                raise ContractError(subject.who, "attributes", f"{said}; did you mean '{guess[0]}'?")


def interface_attributes(kind: str, cls: type) -> dict[str, Any]:
    """The class attributes that the interface of a component declares, with their defaults."""
    interface = interface_of(kind, cls)
    found = class_info(f"{interface.__module__}:{interface.__qualname__}").attributes
    return {name: value for name, value in found.items() if not name.startswith("_")}


def _fits(subject: Subject, holds: bool, found: str) -> None:
    require(holds, subject.who, "attributes", found)
