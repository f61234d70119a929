"""The contract of a schedule: its phases can be executed in their order, and the tabular runner plays them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nashtune.games.matrices import make_game
from nashtune.games.runner import TabularRunner
from nashtune.interfaces import Round, Schedule
from nashtune.interfaces.schedule import Anchor, Collect, Judge, Pair, Update
from nashtune.spec.model import ComponentSpec, Spec
from nashtune.spec.phases import check_schedule
from nashtune.testing.contract import require, running
from nashtune.testing.declared import check_class
from nashtune.testing.subject import Subject

PLAYED = 8
"""Rounds that are played."""
MATRIX = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
START = np.array([0.5, 0.3, 0.2])


class _First(Schedule):
    """The first rounds of a schedule."""

    def __init__(self, rounds: tuple[Round, ...]) -> None:
        self._rounds = rounds

    def rounds(self) -> tuple[Round, ...]:
        """They."""
        return self._rounds


def check(subject: Subject, options: Mapping[str, Any]) -> None:
    """Check a schedule with each of its options.

    Raises:
        ContractError: it breaks a rule.
    """
    check_class(subject)
    for chosen, made in subject.swept(options):
        assert isinstance(made, Schedule)
        who = subject.named(chosen)
        with running(who, "rounds()"):
            rounds, again = made.rounds(), made.rounds()
        require(isinstance(rounds, tuple), who, "schedule-rounds", f"rounds() gave a {type(rounds).__name__}, no tuple")
        require(rounds == again, who, "schedule-same", "rounds() gave others when it was asked again")
        problems = check_schedule(rounds)
        require(not problems, who, "schedule-rounds", "; ".join(problems))
        _declares(made, rounds, who)
        _plays(subject, chosen, made, rounds[:PLAYED], who)


def _declares(schedule: Schedule, rounds: Sequence[Round], who: str) -> None:
    phases = [phase for one in rounds for phase in one.phases]
    rule, reads = "schedule-declares", schedule.reads
    draws = [phase for phase in phases if isinstance(phase, Collect)]
    opponent = any(draw.role == "opponent" for draw in draws)
    for section, used in (("sampler", bool(draws)), ("oracle", any(isinstance(phase, Judge) for phase in phases))):
        does = "use" if used else "do not use"
        require((section in reads) == used, who, rule, f"reads is {reads!r}, and its phases {does} the {section}")
    pairs = any(isinstance(phase, Pair) for phase in phases)
    wanted = pairs and not opponent and not schedule.scores
    why = (
        "an opponent is drawn"
        if opponent
        else "completions are scored one by one"
        if schedule.scores
        else "pairs are made"
    )
    if draws:
        require(("pairing" in reads) == wanted, who, rule, f"reads is {reads!r}, and {why}")
    require(not (opponent and schedule.scores), who, rule, "scores is declared, and an opponent is drawn too")
    says = any(isinstance(phase, Anchor) and phase.previous for phase in phases)
    anchors = "an Anchor says" if says else "no Anchor says"
    found = f"gives_previous is {schedule.gives_previous}, and {anchors} what `previous` is"
    require(schedule.gives_previous == says, who, rule, found)


def _plays(
    subject: Subject, options: Mapping[str, Any], schedule: Schedule, rounds: tuple[Round, ...], who: str
) -> None:
    reference = "nashtune.references.previous:PreviousReference"
    if not schedule.gives_previous:
        reference = "nashtune.references.base:BaseReference"
    spec = Spec(
        name="probe",
        about={},
        loss=ComponentSpec("loss", "probe", "nashtune.testing.probes:Probe"),
        kl=None,
        references={"anchor": ComponentSpec("reference", "anchor", reference)},
        oracle=None,
        sampler=None,
        pairing=None,
        schedule=ComponentSpec("schedule", "tested", subject.info.target, dict(options)),
    )
    game = make_game("probe", MATRIX, START)
    with running(who, "the tabular runner", "schedule-plays"):
        runner = TabularRunner(spec, [game])
        runner.schedule = _First(tuple(map(_anchored, rounds)))  # of a thousand rounds the first ones say enough
        policies = [np.exp(policy) for policy in runner.run().policies]
    for number, policy in enumerate(policies):
        total = float(policy.sum())
        right = bool(np.isfinite(policy).all()) and abs(total - 1.0) < 1e-9
        require(right, who, "schedule-plays", f"after round {number} the policy is {policy.tolist()}, sum {total:.12g}")
    moved = any(not np.allclose(policy, START, atol=1e-6) for policy in policies[1:])
    require(moved, who, "schedule-plays", f"after {len(rounds)} rounds every policy is still the start")


def _anchored(declared: Round) -> Round:
    """With an Anchor before its first update: a round without one scores its references as it goes, to the same."""
    if any(isinstance(phase, Anchor) for phase in declared.phases):
        return declared
    at = next((i for i, phase in enumerate(declared.phases) if isinstance(phase, Update)), len(declared.phases))
    phases = (*declared.phases[:at], Anchor(), *declared.phases[at:])
    return replace(declared, phases=phases)
