"""What must hold between the components of a spec; read from literal class attributes, so nothing is imported."""

from __future__ import annotations

from typing import get_args

from nashtune.errors import nearest
from nashtune.interfaces.batch import RowKind
from nashtune.plugins.classinfo import ClassInfo
from nashtune.plugins.static import class_info
from nashtune.spec.components import GAME_SECTIONS, LEAVE_OUT
from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute, check_game_parts, such
from nashtune.spec.klrules import check_told
from nashtune.spec.model import ComponentSpec, Spec
from nashtune.spec.rewardrules import check_rewards
from nashtune.spec.settings import where_and_what

COUNTS, MOST_ROUNDS = ("rounds", "steps"), 1_000_000
"""Settings of a schedule that say how many rounds it lists, and how many can be listed."""


def cross_check(spec: Spec, found: Collector) -> None:
    """Note every component that lacks what it reads, and everything that no component reads."""
    _check_references(spec, found)
    _check_kl(spec, found)
    _check_count(spec, found)
    check_game_parts(spec, found)
    check_rewards(spec, found)
    reads = attribute(spec.schedule, "reads", ())
    replays = spec.sampler is not None and attribute(spec.sampler, "replays", False)
    for section in GAME_SECTIONS:
        component = getattr(spec, section)
        if component is not None and section not in reads:
            found.add(f"{component.where}: {section} is not read by the schedule '{spec.schedule.name}'; {LEAVE_OUT}")
        if component is None and section in reads and not (section == "oracle" and replays):
            found.add(
                f"{spec.schedule.where}: the schedule '{spec.schedule.name}' reads {section}, which is missing; "
                f"add `{section}: NAME`"
            )


def _check_references(spec: Spec, found: Collector) -> None:
    readers: dict[str, list[str]] = {}
    for path, component in spec.components():
        for anchor in attribute(component, "anchors", ()):
            readers.setdefault(anchor, []).append(f"{path[0]} '{component.name}'")
    if spec.kl is not None and attribute(spec.kl, "statistics", ()):
        readers.setdefault("ref", []).append(f"kl '{spec.kl.name}'")
    for anchor, who in readers.items():
        if anchor not in spec.references:
            given = nearest(anchor, spec.references) if spec.references else ""
            found.add(
                f"{spec.loss.where}: {' and '.join(who)} reads the reference '{anchor}', which is missing{given}; "
                f"add `references: {{{anchor}: base}}`"
            )
    for name, component in spec.references.items():
        if name not in readers:
            hint = nearest(name, readers) if readers else "; write `references: none`"
            found.add(f"{component.where}: no component reads the reference '{name}'{hint}")


def _check_count(spec: Spec, found: Collector) -> None:
    """Before the schedule lists its rounds: it would do so until the memory is full."""
    for name in COUNTS:
        value = spec.schedule.args.get(name)
        if isinstance(value, int) and value > MOST_ROUNDS:
            where = where_and_what(spec.places.get(("schedule", name), spec.schedule.where), f"schedule.{name}")
            found.add(f"{where}: more rounds than can be listed; give {MOST_ROUNDS} or fewer")


def _check_kl(spec: Spec, found: Collector) -> None:
    uses_beta = attribute(spec.loss, "uses_beta", True)
    if spec.kl is None:
        if uses_beta and not attribute(spec.loss, "beta_optional", False):
            found.add(
                f"{spec.loss.where}: the loss '{spec.loss.name}' multiplies by beta, but there is no kl; "
                "add `kl: {name: fixed, beta: 0.1}`"
            )
        return
    if not uses_beta:
        found.add(f"{spec.kl.where}: the loss '{spec.loss.name}' has no beta, so kl is not read; write `kl: none`")
    else:
        _check_kl_rows(spec, spec.kl, found)
        check_told(spec, spec.kl, found)
    if not attribute(spec.kl, "statistics", ()):
        return
    reference = spec.references.get("ref")
    if reference is not None and not attribute(reference, "gives_logits", True):
        found.add(
            f"{reference.where}: kl '{spec.kl.name}' reads the logits of the reference 'ref', and '{reference.name}' "
            "gives none; use base, adapter_off or checkpoint"
        )


def _check_kl_rows(spec: Spec, kl: ComponentSpec, found: Collector) -> None:
    """Whether the KL controller works on the rows that the loss trains on."""
    info, rows = class_info(kl.target), attribute(spec.loss, "rows", "pairs")
    works_on = _rows_of(info)
    if not isinstance(works_on, tuple) or not set(works_on) <= set(get_args(RowKind)):
        found.add(
            f"{kl.where}: kl '{kl.name}': {info.name}.rows is {works_on!r} ({info.where}); it is a tuple of some of "
            f"{', '.join(get_args(RowKind))}, such as ('pairs',)"
        )
    elif works_on and rows not in works_on:
        kls = such("kl", lambda one: not _rows_of(one) or rows in _rows_of(one))
        losses = such("loss", lambda one: one.attributes["rows"] in works_on and one.attributes["uses_beta"])
        found.add(
            f"{kl.where}: kl '{kl.name}' works on {' and '.join(works_on)}, and the loss '{spec.loss.name}' trains on "
            f"{rows}; use a kl for {rows} ({kls}), or a loss on {' or '.join(works_on)} ({losses})"
        )


def _rows_of(info: ClassInfo) -> tuple[str, ...]:
    """Kinds of rows that a KL controller works on; empty: any. Statistics of the vocabulary are of pairs alone."""
    found: tuple[str, ...] = info.attributes.get("rows") or (("pairs",) if info.attributes.get("statistics") else ())
    return found
