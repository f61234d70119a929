"""What must hold between the components of a spec; read from literal class attributes, so nothing is imported."""

from __future__ import annotations

from nashtune.errors import nearest
from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute, check_game_parts
from nashtune.spec.model import Spec
from nashtune.spec.rewardrules import check_rewards

GAME_SECTIONS = ("oracle", "sampler", "pairing")


def cross_check(spec: Spec, found: Collector) -> None:
    """Note every component that lacks what it reads, and everything that no component reads."""
    _check_references(spec, found)
    _check_kl(spec, found)
    check_game_parts(spec, found)
    check_rewards(spec, found)
    reads = attribute(spec.schedule, "reads", ())
    replays = spec.sampler is not None and attribute(spec.sampler, "replays", False)
    for section in GAME_SECTIONS:
        component = getattr(spec, section)
        if component is not None and section not in reads:
            found.add(
                f"{component.where}: {section} is not read by the schedule '{spec.schedule.name}'; remove the section"
            )
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
    if not attribute(spec.kl, "statistics", ()):
        return
    reference = spec.references.get("ref")
    if reference is not None and not attribute(reference, "gives_logits", True):
        found.add(
            f"{reference.where}: kl '{spec.kl.name}' reads the logits of the reference 'ref', and '{reference.name}' "
            "gives none; use base, adapter_off or checkpoint"
        )
    if attribute(spec.loss, "rows", "pairs") != "pairs":
        found.add(
            f"{spec.kl.where}: kl '{spec.kl.name}' works on pairs, but the loss '{spec.loss.name}' "
            "reads single examples; use fixed"
        )
