"""The sections of a spec that name no component: about, head, optimizer."""

from __future__ import annotations

from typing import Any

from nashtune.errors import nearest
from nashtune.plugins.static import class_info
from nashtune.spec.draft import Draft
from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute
from nashtune.spec.model import ABOUT, ABOUT_KINDS, ComponentSpec, HeadSpec, OptimizerSpec
from nashtune.spec.reductions import check_reductions
from nashtune.spec.settings import check_options
from nashtune.spec.types import Choice, Mismatch, Text, describe


def read_about(draft: Draft, found: Collector) -> dict[str, Any]:
    """Title, paper and the like: known keys with text, and the list of `reduces_to`."""
    about: dict[str, Any] = {}
    for key, leaf in draft.below("about").items():
        if key not in ABOUT:
            found.add(f"{leaf.where}: about.{key} is not known{nearest(key, ABOUT)}")
            continue
        try:
            if key == "reduces_to":
                about[key] = check_reductions(leaf.value)
            else:
                about[key] = (Choice(ABOUT_KINDS) if key == "kind" else Text()).check(leaf.value)
        except Mismatch as mismatch:
            found.add(f"{leaf.where}: about.{key}: {mismatch}")
    return about


def _fields(draft: Draft, section: str, target: str, source: str, found: Collector) -> dict[str, Any] | None:
    """Checked values of a section that is no component; None when something in it is wrong."""
    leaves = draft.below(section)
    before = len(found.lines)
    values = check_options(
        {key: leaf.value for key, leaf in leaves.items()},
        class_info(target),
        what=section,
        who=section,
        where=lambda key=None, *below: leaves[key].where if key in leaves else source,
        found=found,
    )
    return None if len(found.lines) > before else values


def read_head(draft: Draft, loss: ComponentSpec | None, source: str, found: Collector) -> HeadSpec | None:
    """The head, with defaults where the loss reads scores and the spec says nothing of it."""
    leaves = draft.below("head")
    if loss is not None and attribute(loss, "reads", "logprobs") != "scores":
        if leaves:
            where = next(iter(leaves.values())).where
            found.add(
                f"{where}: the loss '{loss.name}' reads log-probs and no scores, so head is not read; remove the "
                "section"
            )
        return None
    values = _fields(draft, "head", "nashtune.spec.model:HeadSpec", source, found)
    if loss is None or values is None:
        return None
    if values["member"] is not None and values["members"] > 1:
        found.add(
            f"{leaves['member'].where}: head.member goes on with one output of a head, but head.members is "
            f"{values['members']}; use members: 1, or leave member out"
        )
    return HeadSpec(**values)


def read_optimizer(draft: Draft, source: str, found: Collector) -> OptimizerSpec:
    """Optimiser and learning-rate schedule, defaults filled in."""
    leaves = draft.below("optimizer")
    values = _fields(draft, "optimizer", "nashtune.spec.model:OptimizerSpec", source, found)
    if values is None:
        return OptimizerSpec()
    betas = tuple(values["betas"])
    if max(betas) >= 1:
        found.add(
            f"{leaves['betas'].where}: optimizer.betas: expected two numbers >= 0 and < 1, found {describe(betas)}"
        )
    spec = OptimizerSpec(**{**values, "betas": betas})
    for key in leaves.keys() - spec.to_dict().keys():
        found.add(f"{leaves[key].where}: optimizer.{key} is not read by {spec.name}; remove it")
    return spec
