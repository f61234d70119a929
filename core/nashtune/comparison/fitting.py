"""One setting for many specs: which of them it is for. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from nashtune.errors import InputError
from nashtune.spec.gamerules import is_game
from nashtune.spec.model import COMPONENTS, ComponentSpec, Spec
from nashtune.spec.overrides import Override
from nashtune.spec.resolve import resolve

MAY_BE_ABSENT = ("kl", "oracle", "sampler", "pairing")


def resolve_each(sources: Sequence[str], overrides: Sequence[Override]) -> tuple[list[Spec], list[str]]:
    """Every spec with the settings that are for it.

    A setting of a section that a spec leaves out is not for that spec: an oracle is not for a method that draws no
    completions. Nor is an option of a component that the spec's own component does not have, where another's has it:
    `schedule.steps`, where one spec counts steps and another rounds. It is said; an option of the command line that is
    for none of them is an error, but for an oracle, which may still judge the comparison.

    Args:
        sources: Names or files of specs.
        overrides: Settings on top of all of them.

    Returns:
        The specs, and what was left out, in sentences.

    Raises:
        InputError: a spec or a setting is wrong, or a setting is for no spec.
    """
    bare = [_bare(source) for source in sources]
    known = [
        override
        for override in overrides
        if any(own is not None and _reads(own, override.path) and _has(own, override, overrides) for own in bare)
    ]  # what no component has is a mistake, which resolving explains
    specs, notes = [], []
    used: list[Override] = []
    for source, own in zip(sources, bare, strict=True):
        if own is None:
            specs.append(resolve(source, overrides))
            used += overrides
            continue
        read = [override for override in overrides if _reads(own, override.path)]
        fitting = [one for one in read if one not in known or _has(own, one, overrides)]
        specs.append(resolve(source, fitting))
        used += fitting
        left = [override for override in overrides if override not in fitting]
        for section in dict.fromkeys(override.path[0] for override in left):
            given = [override for override in left if override.path[0] == section]
            options = ", ".join(".".join(override.path) for override in given)
            component = _component(own, given[0].path)
            other = given[0] in read and component is not None
            why = f"its {section} '{component.name}' has no such option" if other and component else _why(section)
            notes.append(f"{own.name} does not read {options} ({given[0].where}): {why}")
    for override in overrides:  # a run file may serve other comparisons too; an option was typed for this one
        if override.where.startswith("--") and override not in used and override.path[0] != "oracle":
            raise InputError(f"{override.where}: {'.'.join(override.path)} is for none of the specs; leave it out")
    return specs, notes


def _bare(source: str) -> Spec | None:
    """A spec without settings; None where it needs what they bring."""
    try:
        return resolve(source)
    except InputError:
        return None


def _component(spec: Spec, path: tuple[str, ...]) -> ComponentSpec | None:
    """The component that a setting is about."""
    section = path[0]
    if section not in COMPONENTS:
        return None
    return spec.references.get(path[1]) if section == "references" and len(path) > 1 else getattr(spec, section, None)


def _has(spec: Spec, override: Override, overrides: Sequence[Override]) -> bool:
    """Whether the spec's component has the option; one that the settings put in its place may have others."""
    component = _component(spec, override.path)
    named = override.path[:2] if override.path[0] == "references" else override.path[:1]
    option = override.path[len(named) :]
    if not isinstance(component, ComponentSpec) or not option or option == ("name",):
        return True
    if any(one.path in (named, (*named, "name")) for one in overrides):
        return True
    return option[0] in component.args


def _reads(spec: Spec, path: tuple[str, ...]) -> bool:
    section = path[0]
    if section in MAY_BE_ABSENT:
        return getattr(spec, section) is not None
    if section == "schedule":
        return is_game(spec)
    return section != "references" or len(path) == 1 or path[1] in spec.references


def _why(section: str) -> str:
    if section in ("oracle", "sampler", "pairing", "schedule"):
        return "it draws no completions"
    return "its loss has no beta" if section == "kl" else "it has no such reference"
