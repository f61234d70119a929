"""Whether a schedule's phases can be executed in their order: what each one uses, an earlier one has made."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from nashtune.errors import nearest
from nashtune.interfaces.schedule import START, Anchor, Collect, Judge, Pair, Phase, Round, Snapshot, Update

LIVE = "live"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")  # a snapshot is a file of its name
SUM = 1e-9  # how far weights that sum to 1 may be off
WEIGHTS_ARE_LOST = "the weights of the update before are in no snapshot and would be lost; put a Snapshot before"


def check_schedule(rounds: Sequence[Round]) -> list[str]:
    """What is wrong with a schedule's phases, in sentences; nothing when it can be executed.

    An offline schedule (one round without `Collect`) is right, too. Of a schedule with mistakes the first round that
    has any is reported: the rounds after it usually repeat them.

    Args:
        rounds: What `Schedule.rounds` declares.
    """
    phases = [phase for one in rounds for phase in one.phases]
    if not rounds:
        return ["there are no rounds"]
    if not any(isinstance(phase, Update) for phase in phases):
        return ["no round has an Update, so that nothing is trained; end one with Update and Snapshot"]
    keeps = any(isinstance(phase, Update) and phase.start is None for phase in phases)
    walk = _Walk(game=any(isinstance(phase, Collect) for phase in phases), keeps=keeps)
    for number, declared in enumerate(rounds, start=1):
        if found := list(walk.through(number, declared)):
            return found
    return []


class _Walk:
    """What is there at each point: snapshots, and what the live weights are.

    Args:
        game: Whether completions are drawn at all.
        keeps: Whether an update goes on with the live weights: then drawing and scoring put them back.
    """

    def __init__(self, *, game: bool, keeps: bool) -> None:
        self._game = game
        self._keeps = keeps
        self._known: dict[str, Literal["weights", "average"]] = {START: "weights"}
        self._live: Literal["known", "unsaved", "other"] = "known"

    def through(self, number: int, declared: Round) -> Iterator[str]:
        """Problems of a round."""
        before: list[Phase] = []
        for place, phase in enumerate(declared.phases, start=1):
            where = f"round {number}, phase {place} ({type(phase).__name__})"
            yield from (f"{where}: {problem}" for problem in (*self._order(before, phase), *self._weights(phase)))
            before.append(phase)
        if declared.policy is not None and declared.policy not in self._known:
            yield f"round {number}: its policy: {self._missing(declared.policy)}"
        elif declared.policy is not None and self._known[declared.policy] == "average":
            yield f"round {number}: its policy: '{declared.policy}' is an average, which no snapshot keeps on disk"

    def _order(self, before: Sequence[Phase], phase: Phase) -> Iterator[str]:
        """What must come before a phase in the same round."""
        roles = [one.role for one in before if isinstance(one, Collect)]
        done = {type(one) for one in before}
        match phase:
            case Collect(role=role):
                if role in roles:
                    yield f"the round has drawn the completions of the {role} already; one Collect for each role"
                if Judge in done:
                    yield "it comes after Judge, so that nobody would judge these completions; put it before"
            case Judge() if "policy" not in roles:
                yield "no completions of the policy were drawn in this round; put a Collect before"
            case Pair() if Judge not in done:
                yield "nothing was judged in this round; put a Judge before"
            case Anchor() | Update() if self._game and Pair not in done:
                yield "the round has no rows yet; put Collect, Judge and Pair before"

    def _weights(self, phase: Phase) -> Iterator[str]:
        """What a phase does with snapshots and the live weights."""
        match phase:
            case Collect(policy=name, reference_weight=weight):
                if weight is not None and not 0.0 <= weight <= 1.0:
                    yield f"reference_weight is {weight:g}; it lies in [0, 1]"
                yield from self._borrow([name] if name is not None else [], live=name is None)
            case Anchor(previous=previous):
                yield from _not_one("previous", previous)
                yield from self._borrow(previous)
            case Update(start=start, step_scale=scale):
                if not (math.isfinite(scale) and scale > 0.0):
                    yield f"step_scale is {scale:g}; it is a number > 0"
                if start is not None:
                    yield from self._absent([start])
                    if self._live == "unsaved":
                        yield WEIGHTS_ARE_LOST
                self._live = "unsaved"
            case Snapshot(name=name, average=average):
                yield from self._snapshot(name, average)

    def _borrow(self, names: Sequence[str] | Mapping[str, float], *, live: bool = False) -> Iterator[str]:
        """A phase that draws from or scores with some weights, and changes none."""
        yield from self._absent(names)
        if live:
            yield from self._replaced()
        elif not self._keeps:
            if self._live == "unsaved":
                yield WEIGHTS_ARE_LOST
            self._live = "other"

    def _snapshot(self, name: str, average: Mapping[str, float] | None) -> Iterator[str]:
        if name == LIVE or not NAME.fullmatch(name):
            yield f"'{name}' is no name for a snapshot; use letters, digits and _.@-, and not '{LIVE}'"
        elif name in self._known:
            yield f"there is a snapshot '{name}' already; give each one a name of its own"
        if average is None:
            yield from self._replaced()
            self._live = "known" if self._live == "unsaved" else self._live
        else:
            yield from _not_one("average", average)
            sources = [source for source in average if source != LIVE]
            yield from self._absent(sources)
            if LIVE in average:
                yield from self._replaced()
        self._known[name] = "weights" if average is None else "average"

    def _absent(self, names: Sequence[str] | Mapping[str, float]) -> Iterator[str]:
        return (self._missing(name) for name in names if name not in self._known)

    def _missing(self, name: str) -> str:
        return f"there is no snapshot '{name}' at that point{nearest(name, self._known)}"

    def _replaced(self) -> Iterator[str]:
        if self._live == "other":
            yield "the live weights are those of another snapshot at that point; name the snapshot that is meant"


def _not_one(what: str, weights: Mapping[str, float]) -> Iterator[str]:
    total = math.fsum(weights.values())
    if weights and not abs(total - 1.0) <= SUM:
        yield f"the weights of `{what}` sum to {total:.12g} ({dict(weights)}); they sum to 1"
