"""Whether a KL controller that moves is told of what happens; its functions are read, so nothing is imported."""

from __future__ import annotations

import ast

from nashtune.plugins.bindings import Bindings
from nashtune.plugins.classinfo import ClassInfo
from nashtune.plugins.loading import load_object, split_target
from nashtune.plugins.lookup import Found, look_up
from nashtune.plugins.source import Unreadable, read_module
from nashtune.plugins.static import class_info
from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute, such
from nashtune.spec.model import ComponentSpec, Spec

INTERFACE = "nashtune.interfaces.kl:KLController"
TELL = ("observe", "observe_round")
"""By which a controller is told what happened."""


def check_told(spec: Spec, kl: ComponentSpec, found: Collector) -> None:
    """Note a controller that moves, where rollouts are judged against an opponent's.

    Such a round measures nothing before its update: no `old` log-probs, and no β over all of the update's rollouts. So
    there is nothing that the controller could be told, and β would stay where it began without a word.
    """
    if attribute(spec.loss, "rows", "pairs") != "rollouts" or attribute(spec.schedule, "scores", False):
        return
    if not _moves(kl.target):
        return
    still = such("kl", lambda one: not (_moves(one.target) or one.attributes["statistics"] or _elsewhere(one)))
    found.add(
        f"{kl.where}: kl '{kl.name}' moves with what each update's rollouts show, and the schedule "
        f"'{spec.schedule.name}' measures none of it: it judges rollouts against an opponent's; use a controller that "
        f"does not move ({still}), or a schedule that trains on rewards "
        f"({such('schedule', lambda one: one.attributes.get('scores'))})"
    )


def _elsewhere(info: ClassInfo) -> bool:
    rows = info.attributes["rows"]
    return bool(rows) and "rollouts" not in rows


def _moves(target: str) -> bool:
    """Whether a controller's class, or one that it inherits from, defines one of `TELL`."""
    info = class_info(target)
    lineage = [info.target, *info.bases]
    own = lineage[: lineage.index(INTERFACE)] if INTERFACE in lineage else lineage
    return any(name in _functions(one) for one in own for name in TELL)


def _functions(target: str) -> set[str]:
    """Names that a class's own body defines; imported where its source does not say them."""
    module, name = split_target(target)
    try:
        source = look_up(read_module(module), name)
        if not isinstance(source, Found) or not isinstance(source.node, ast.ClassDef):
            raise Unreadable(target)
    except (Unreadable, ModuleNotFoundError):
        return set(vars(load_object(module, name)))
    body = Bindings(source.node.body)
    return {*body.names, *body.unclear}
