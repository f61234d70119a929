"""What the parts of a game must offer one another; read from literal class attributes, so nothing is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nashtune.errors import InputError
from nashtune.plugins import load_plugins
from nashtune.plugins.classinfo import ClassInfo
from nashtune.plugins.static import class_info
from nashtune.spec.findings import Collector
from nashtune.spec.model import ComponentSpec, Spec

REWARD_ORACLE = "nashtune.interfaces.oracle:RewardOracle"


def attribute(component: ComponentSpec, name: str, default: Any) -> Any:
    """A literal class attribute of a component's class."""
    return class_info(component.target).attributes.get(name, default)


def is_game(spec: Spec) -> bool:
    """Whether a spec's schedule draws completions, so that its training rows are prompts."""
    return "sampler" in attribute(spec.schedule, "reads", ())


def chosen(oracle: ComponentSpec | None) -> bool:
    """Whether a spec names an oracle, and not the placeholder that leaves it to the run."""
    return oracle is not None and not attribute(oracle, "chosen_by_run", False)


def scores(info: ClassInfo) -> bool:
    """Whether an oracle's class gives rewards."""
    return REWARD_ORACLE in info.bases


def such(kind: str, fits: Callable[[ClassInfo], Any]) -> str:
    """The registered components of a kind that fit, for the end of a message."""
    registry = load_plugins().registry
    names = []
    for name in registry.names(kind):
        try:
            if fits(class_info(registry.get(kind, name).component.target)):
                names.append(name)
        except InputError:  # a component that cannot be read is no advice
            continue
    return ", ".join(names) or "none is installed"


def having(kind: str, name: str) -> str:
    """As `such`, of components whose class attribute `name` is true."""
    return such(kind, lambda info: info.attributes.get(name))


def check_game_parts(spec: Spec, found: Collector) -> None:
    """Note what a game lacks, and what only a game has."""
    game = is_game(spec)
    _check_rows(spec, game, found)
    _check_references(spec, game, found)
    if spec.pairing is not None and "pairing" in attribute(spec.schedule, "reads", ()):
        _check_win_rates(spec, spec.pairing, found)
    if spec.sampler is not None and game:
        _check_sampler(spec, spec.sampler, found)


def _check_rows(spec: Spec, game: bool, found: Collector) -> None:
    """Whether the schedule makes the rows that the loss trains on."""
    rows, loss, schedule = attribute(spec.loss, "rows", "pairs"), spec.loss, spec.schedule
    pairs = "pairing" in attribute(schedule, "reads", ())
    if rows == "rollouts" and not game:
        found.add(
            f"{loss.where}: the loss '{loss.name}' trains on completions that the policy draws itself, and the "
            f"schedule '{schedule.name}' draws none; add one that does ({such('schedule', _makes_rollouts)})"
        )
    elif rows == "rollouts" and pairs:
        found.add(
            f"{loss.where}: the loss '{loss.name}' trains on single completions, and the schedule '{schedule.name}' "
            "makes pairs; use a loss on pairs, or another schedule "
            f"({such('schedule', _makes_rollouts)})"
        )
    elif game and rows == "pairs" and not pairs:
        found.add(
            f"{loss.where}: the loss '{loss.name}' trains on pairs, and the schedule '{schedule.name}' makes none; use "
            "a schedule that reads a pairing, such as online"
        )
    elif game and rows == "examples":
        found.add(
            f"{loss.where}: the loss '{loss.name}' trains on labelled examples, and no schedule makes them; use a loss "
            "on pairs"
        )
    if attribute(loss, "uses_win_rates", False) and not pairs:
        found.add(
            f"{loss.where}: the loss '{loss.name}' reads win rates, which only a game's pairing gives, and the "
            f"schedule '{schedule.name}' reads no pairing; add `schedule: online`"
        )


def _makes_rollouts(info: ClassInfo) -> bool:
    reads = info.attributes.get("reads", ())
    return "sampler" in reads and "pairing" not in reads


def _check_references(spec: Spec, game: bool, found: Collector) -> None:
    gives_previous = attribute(spec.schedule, "gives_previous", False)
    for name, reference in spec.references.items():
        snapshot = attribute(reference, "snapshot", None)
        if snapshot == "previous" and not gives_previous:
            found.add(
                f"{reference.where}: references.{name}: '{reference.name}' is what a schedule's rounds say, and the "
                f"schedule '{spec.schedule.name}' says nothing of it; use base, or a schedule that does "
                f"({having('schedule', 'gives_previous')})"
            )
        if game and snapshot is None and not attribute(reference, "gives_logits", True):
            found.add(
                f"{reference.where}: references.{name}: '{reference.name}' keeps log-probs of rows that are there "
                "before training, and a game makes its rows on the way; use base"
            )
    ref = spec.references.get("ref")
    if not game or spec.kl is None or ref is None or attribute(ref, "snapshot", None) is None:
        return
    if attribute(spec.kl, "statistics", ()):
        found.add(
            f"{spec.kl.where}: kl '{spec.kl.name}' reads the logits of the reference 'ref' while it trains, and a game "
            f"scores '{ref.name}' once before each update; not supported with rounds, use fixed"
        )


def _check_win_rates(spec: Spec, pairing: ComponentSpec, found: Collector) -> None:
    if attribute(spec.loss, "uses_win_rates", False) and not attribute(pairing, "gives_win_rates", False):
        found.add(
            f"{pairing.where}: the loss '{spec.loss.name}' reads win rates, and the pairing '{pairing.name}' gives "
            f"none; use one that compares all completions ({having('pairing', 'gives_win_rates')})"
        )


def _check_sampler(spec: Spec, sampler: ComponentSpec, found: Collector) -> None:
    for part in (spec.loss, spec.schedule):
        if attribute(part, "mixes", False):
            check_mixes(f"the {part.kind} '{part.name}'", sampler, found)
    if sampler.args.get("temperature") == 0 and sampler.args.get("completions", 1) > 1:
        where = spec.places.get(("sampler", "temperature"), sampler.where)
        found.add(
            f"{where}: sampler.temperature: 0 draws the same completion every time, so that no two can be compared; "
            "use 1.0, or any number above 0"
        )
    if not attribute(sampler, "selects", False):
        return
    if spec.oracle is None:
        found.add(
            f"{sampler.where}: the sampler '{sampler.name}' chooses by the oracle's scores, and there is no oracle; "
            f"add one that scores ({such('oracle', scores)})"
        )
    elif chosen(spec.oracle) and not scores(class_info(spec.oracle.target)):
        found.add(
            f"{sampler.where}: the sampler '{sampler.name}' chooses by the oracle's scores, and the oracle "
            f"'{spec.oracle.name}' compares pairs; use an oracle that scores ({such('oracle', scores)})"
        )


def check_mixes(who: str, sampler: ComponentSpec, found: Collector) -> None:
    """Note a sampler that cannot draw from a mixture with the starting policy, where something asks for one."""
    # what was recorded is over: it may well have come from a mixture
    if not (attribute(sampler, "mixes", False) or attribute(sampler, "replays", False)):
        found.add(
            f"{sampler.where}: {who} draws from a mixture with the starting policy, and the sampler '{sampler.name}' "
            f"does not mix; use one that does ({having('sampler', 'mixes')})"
        )
