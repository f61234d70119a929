"""Which oracle compares the answers: the one that is asked for, else the one that the specs share. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nashtune.errors import InputError
from nashtune.spec.components import resolve_component
from nashtune.spec.draft import Draft
from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute, chosen, such
from nashtune.spec.loader import Located, load_yaml
from nashtune.spec.model import ComponentSpec, Spec
from nashtune.spec.overrides import Override, flatten
from nashtune.spec.secrets import find_secrets
from nashtune.spec.types import Typed

OPTION = "--judge"
SECTION = "oracle"


def judge_override(option: str, text: str) -> Override:
    """From `--judge rules`, or from `--judge.rules` and `[distinct_1]`."""
    key = option.removeprefix(OPTION).removeprefix(".")
    if not key or key == "name":
        return Override((SECTION,), text, option)
    try:
        value = load_yaml(text, option).data
    except InputError:
        value = text  # for the option's annotation to accept or refuse
    return Override((SECTION, key), Typed(text, value), option)


def choose_judge(asked: Sequence[Override], specs: Sequence[Spec], overrides: Sequence[Override]) -> ComponentSpec:
    """The judge of a comparison.

    Args:
        asked: `--judge` and its options.
        specs: Resolved; the oracles of those that have one must be the same, where no judge is asked for.
        overrides: Settings on top of all specs; their oracle judges where no spec reads one.

    Raises:
        InputError: there is none, or several, or it is wrong.
    """
    if asked:
        return _resolved(asked)
    found = {spec.name: spec.oracle for spec in specs if spec.oracle is not None and chosen(spec.oracle)}
    different = [name for name, oracle in found.items() if oracle != next(iter(found.values()))]
    if different:
        first = next(iter(found))
        raise InputError(
            f"compare: which oracle compares the answers? {first} is trained with '{_name(found[first])}' and "
            f"{different[0]} with '{_name(found[different[0]])}' or with other options; name one: {OPTION} NAME"
        )
    if found:
        return next(oracle for oracle in found.values() if oracle is not None)
    if given := [override for override in overrides if override.path[0] == SECTION]:
        return _resolved(given)
    raise InputError(
        f"compare: which oracle compares the answers? None of the specs has one; name it: {OPTION} NAME, with its "
        f"options as {OPTION}.OPTION VALUE ({_known()})"
    )


def trained_on(judge: ComponentSpec, specs: Sequence[Spec]) -> list[str]:
    """The specs whose own oracle is the judge, wherever that runs: their training asks the one that compares them.

    Args:
        judge: Of the comparison.
        specs: Of the comparison.
    """
    return [spec.name for spec in specs if spec.oracle is not None and _meaning(spec.oracle) == _meaning(judge)]


def _meaning(oracle: ComponentSpec) -> tuple[str, dict[str, Any]]:
    where = attribute(oracle, "placement", ())
    return oracle.target, {name: value for name, value in oracle.args.items() if name not in where}


def read_judge(plain: Mapping[str, Any], source: str) -> ComponentSpec:
    """A judge from `ComponentSpec.to_dict`.

    Raises:
        InputError: it is wrong.
    """
    return _resolved(flatten(Located({SECTION: dict(plain)}, source)))


def _resolved(settings: Sequence[Override]) -> ComponentSpec:
    draft, found = Draft(), Collector()
    for override in sorted(settings, key=lambda one: one.path != (SECTION,) and one.path[-1] != "name"):
        draft.put(override)
    judge = resolve_component(draft, (SECTION,), found)
    for path, problem in find_secrets(judge.args if judge is not None else {}):
        found.add(f"{OPTION}.{'.'.join(map(str, path))}: {problem}")
    found.close()
    if judge is None or not chosen(judge):
        named = f"'{judge.name}' leaves the oracle to the run; " if judge is not None else ""
        raise InputError(f"{OPTION}: {named}name one ({_known()})")
    return judge


def _known() -> str:
    return such("oracle", lambda info: not info.attributes.get("chosen_by_run"))


def _name(component: ComponentSpec | None) -> str:
    return component.name if component is not None else ""
