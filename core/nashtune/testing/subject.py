"""A component under test: its class, its name in messages, and the options that it is tried with."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from nashtune.errors import InputError
from nashtune.plugins import KINDS, Registered
from nashtune.plugins.classinfo import ClassInfo
from nashtune.plugins.lacking import lacking
from nashtune.plugins.loading import load_class, load_object, split_target
from nashtune.plugins.static import class_info
from nashtune.spec.containers import Either
from nashtune.spec.gamerules import attribute
from nashtune.spec.locate import list_specs
from nashtune.spec.model import Spec
from nashtune.spec.resolve import resolve
from nashtune.spec.settings import argument_type
from nashtune.spec.types import Choice, Truth, Type
from nashtune.testing.contract import ContractError, require

WHOLE = 24
"""So many combinations of literal options are all tried; of more, one option is changed at a time."""

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A component under test.

    Args:
        kind: One of the kinds of `nashtune.plugins`.
        cls: Its class.
        info: What is read from its source.
        who: How messages name it.
    """

    kind: str
    cls: type
    info: ClassInfo
    who: str

    def make(self, options: Options) -> Any:
        """An object with these options.

        Raises:
            ContractError: the constructor raises.
        """
        try:
            return self.cls(**options)
        except Exception as error:
            shown = f"{self.cls.__name__}({_shown(options)})"
            raise ContractError(self.who, "constructs", f"{shown} raised {type(error).__name__}: {error}") from error

    def named(self, options: Options) -> str:
        """Its name with the options that differ from the defaults, for messages."""
        defaults = {one.name: one.default for one in self.info.arguments if not one.required}
        own = {name: value for name, value in options.items() if name not in defaults or defaults[name] != value}
        return f"{self.who} with {_shown(own)}" if own else self.who

    def given(self, options: Options) -> list[dict[str, Any]]:
        """The options to try: the caller's, or those of every spec that uses the component, each once.

        Raises:
            ContractError: an argument has no default, and neither a spec nor the caller gives it.
        """
        required = [one.name for one in self.info.arguments if one.required]
        of_specs = used_by_specs(self.info.target)
        if options or not of_specs:
            first = of_specs[0] if of_specs else {}
            base = {name: first[name] for name in required if name in first} | dict(options)
            missing = [name for name in required if name not in base]
            call = f"check_component(..., {', '.join(f'{name}=...' for name in missing)})"
            require(not missing, self.who, "options", f"no spec uses it; give {', '.join(missing)}: {call}")
            return [base]
        return of_specs if required or {} in of_specs else [*of_specs, {}]

    def swept(self, options: Options, *, all_choices: bool = False) -> Iterator[tuple[dict[str, Any], Any]]:
        """(options, object) for those to try, and for changes of each argument that takes one of a few values.

        What the caller gives stays, or with `all_choices` only what can take more than a few values. Combinations that
        the constructor refuses with ValueError are left out.
        """
        fixed = () if all_choices else tuple(options)
        seen: list[dict[str, Any]] = []
        for base in self.given(options):
            if self._full(base) in seen:
                continue
            seen.append(self._full(base))
            yield dict(base), self.make(base)
            for changed in self._changes(base, fixed):
                full = self._full(changed)
                if full not in seen and (made := self._accepted(changed)) is not None:
                    seen.append(full)
                    yield changed, made

    def _full(self, options: Options) -> dict[str, Any]:
        return {one.name: one.default for one in self.info.arguments if not one.required} | dict(options)

    def _changes(self, base: Options, fixed: Sequence[str]) -> Iterator[dict[str, Any]]:
        choices = {one.name: _choices(argument_type(one, self.info.module)) for one in self.info.arguments}
        choices = {name: values for name, values in choices.items() if values and name not in fixed}
        count = 1
        for values in choices.values():
            count *= len(values)
        if count <= WHOLE:
            for combination in product(*choices.values()):
                yield {**base, **dict(zip(choices, combination, strict=True))}
            return
        refused: set[str] = set()
        for name, values in choices.items():
            for value in values:
                changed = {**base, name: value}
                if self._accepted(changed) is None:
                    refused.add(name)
                yield changed
        for one, other in combinations(choices, 2):  # what is refused alone may go with another
            if one in refused or other in refused:
                for a, b in product(choices[one], choices[other]):
                    yield {**base, one: a, other: b}

    def _accepted(self, options: Options) -> Any:
        try:
            return self.cls(**options)
        except ValueError:  # InputError among them
            return None


def subject_of(component: Registered | type) -> Subject:
    """What is to be tested.

    Args:
        component: As `components_of` lists it, or a class that can be imported by its name.

    Raises:
        ContractError: its source does not say what the framework must read from it.
        InputError: it cannot be imported, or is no component.
    """
    if isinstance(component, Registered):
        kind, target = component.component.kind, component.component.target
        who = f"{kind} '{component.component.name}' ({target})"
        cls = load_class(target, kind)
    else:
        cls, kind = component, kind_of(component)
        target = f"{cls.__module__}:{cls.__qualname__}"
        who = f"{kind} {target}"
        if missing := lacking(cls, kind):
            raise InputError(f"{target} {missing}")
    try:
        return Subject(kind, cls, class_info(target), who)
    except InputError as error:
        raise ContractError(who, "attributes", str(error)) from error


def kind_of(cls: type) -> str:
    """The kind of component that a class implements.

    Raises:
        InputError: none.
    """
    for kind, interfaces in KINDS.items():
        if issubclass(cls, tuple(load_object(*split_target(interface)) for interface in interfaces)):
            return kind
    raise InputError(f"{cls.__module__}:{cls.__qualname__} implements no interface of nashtune.interfaces")


def used_by_specs(target: str) -> list[dict[str, Any]]:
    """The options of a component in every spec that uses it, each once."""
    found: list[dict[str, Any]] = []
    for used, options in _used():
        if used == target and options not in found:
            found.append(options)
    return [dict(options) for options in found]


def statistics_of_specs(target: str) -> tuple[str, ...]:
    """The per-token statistics that the KL controllers of a loss's specs give."""
    controllers = [spec.kl for spec in _specs() if spec.kl is not None and spec.loss.target == target]
    return tuple(dict.fromkeys(name for one in controllers for name in attribute(one, "statistics", ())))


def _used() -> Iterator[tuple[str, dict[str, Any]]]:
    for spec in _specs():
        yield from ((component.target, dict(component.args)) for _, component in spec.components())


@functools.cache
def _specs() -> tuple[Spec, ...]:
    found = []
    for listed in list_specs():
        try:
            found.append(resolve(listed.file))
        except InputError:  # check_spec says what is wrong with it
            continue
    return tuple(found)


def _choices(type_: Type) -> tuple[Any, ...]:
    """The values of an argument that takes one of a few; nothing for others."""
    if isinstance(type_, Choice):
        return type_.values
    if isinstance(type_, Truth):
        return (False, True)
    if isinstance(type_, Either):
        parts = [_choices(option) for option in type_.options if option.expected() != "none"]
        return (None, *(value for part in parts for value in part)) if parts and all(parts) else ()
    return ()


def _shown(options: Options) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
