"""Single settings on top of a spec: `--spec.kl.beta 0.2`, or one line of a run file's `spec:` section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.spec.loader import Located, load_yaml
from nashtune.spec.model import SECTIONS
from nashtune.spec.types import Typed

PREFIX = "--spec."


@dataclass(frozen=True)
class Override:
    """One setting.

    Args:
        path: Key path in the spec, for example ("kl", "beta").
        value: Its value; `Typed` when it was typed on the command line.
        where: Where it was given, for messages: "--spec.kl.beta" or "run.yaml:7".
    """

    path: tuple[str, ...]
    value: Any
    where: str


def parse_override(option: str, text: str) -> Override:
    """From `--spec.kl.beta` and `0.2`.

    Raises:
        InputError: the option names no section of a spec.
    """
    path = tuple(option.removeprefix(PREFIX).split("."))
    if path[0] not in SECTIONS or "" in path:
        alone = len(path) == 1 and path[0] not in ("name", "base")
        hint = f"; an option stands behind its component, as in {PREFIX}kl.beta 0.1" if alone else ""
        raise InputError(f"{option}: '{path[0]}' is not a section of a spec{nearest(path[0], SECTIONS)}{hint}")
    try:
        value = load_yaml(text, option).data
    except InputError:
        value = text  # text for the option's annotation to accept or refuse
    return Override(path, value if is_component(path) else Typed(text, value), option)


def take_overrides(argv: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Split `--spec.x.y value` and `--spec.x.y=value` off a command line.

    A component's name comes before its arguments whatever the order they were typed in, so that `--spec.loss.tau 0.5
    --spec.loss ipo` does not lose tau.

    Returns:
        Overrides, and the rest of the command line as it was.

    Raises:
        InputError: an option without value, or of no section.
    """
    overrides: list[Override] = []
    rest: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        if not token.startswith(PREFIX):
            rest.append(token)
            continue
        option, equals, text = token.partition("=")
        if not equals:
            text = next(tokens, "--")
            if text.startswith("--"):
                raise InputError(f"{option} needs a value, for example `{option} 0.1` or `{option}=none`")
        overrides.append(parse_override(option, text))
    return sorted(overrides, key=lambda one: not is_component(one.path) and one.path[-1] != "name"), rest


def is_component(path: tuple[str, ...]) -> bool:
    """Whether a key path names a whole component (or a whole section) and not one of its arguments."""
    return len(path) == 1 or (path[0] == "references" and len(path) == 2)


def flatten(layer: Located) -> list[Override]:
    """A mapping of sections as single settings, component names before their arguments."""
    if not isinstance(layer.data, Mapping):
        raise InputError(f"{layer.where()}: a spec is a mapping of sections ({', '.join(SECTIONS)})")
    return [one for section, value in layer.data.items() for one in _section(layer, (section,), value)]


def _section(layer: Located, path: tuple[str, ...], value: Any) -> list[Override]:
    where = layer.where(path)
    section = path[0]
    if section == "name":
        return [Override(path, value, where)]
    if section not in SECTIONS:
        raise InputError(f"{where}: '{section}' is not a section of a spec{nearest(section, SECTIONS)}")
    if value is None or value == {}:
        raise InputError(f"{where}: {'.'.join(path)} is empty; give a value, write none, or leave the line out")
    if section == "references" and len(path) == 1 and isinstance(value, Mapping):
        return [one for name, part in value.items() for one in _section(layer, (*path, str(name)), part)]
    if not isinstance(value, Mapping):
        return [Override(path, value, where)]
    keys = sorted(value, key=lambda key: key != "name")
    return [Override((*path, str(key)), value[key], layer.where((*path, key))) for key in keys]
