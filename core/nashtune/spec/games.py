"""What a game's schedule and pairing themselves, and its oracle's folders, can say; all of it without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from nashtune.interfaces.pairing import Pairing
from nashtune.interfaces.schedule import Collect, Round, Schedule
from nashtune.oracles.chosen_by_run import question
from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute, check_mixes, chosen, is_game
from nashtune.spec.members import check_folders
from nashtune.spec.model import ComponentSpec, Spec
from nashtune.spec.phases import check_schedule
from nashtune.spec.resolve import build
from nashtune.spec.settings import where_and_what


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a game declares.

    Args:
        rounds: Of its schedule.
        most: `Pairing.most`: (comparisons, pairs) of a prompt with n completions, at most; None without a pairing.
    """

    rounds: tuple[Round, ...]
    most: Callable[[int], tuple[int, int]] | None


def check_game(spec: Spec) -> Declared | None:
    """Construct a game's schedule and pairing, and check what they declare and what the oracle's folders hold.

    Returns:
        None for a spec that is no game.

    Raises:
        InputError: what is wrong, all of it.
    """
    if not is_game(spec):
        return None
    found = Collector()
    rounds, most = _rounds(spec, found), _most(spec, found)
    with found.catch():
        check_folders(spec)
    found.close()
    return Declared(rounds=rounds, most=most)


def unanswered(spec: Spec) -> str | None:
    """What to say of a game that leaves its oracle to the run, when the run names none either; None if all is well."""
    oracle = spec.oracle
    if not is_game(spec) or oracle is None or chosen(oracle) or _replays(spec.sampler):
        return None
    asked = question(oracle.name)
    return f"{oracle.where}: {asked}" if oracle.where else asked


def _replays(sampler: ComponentSpec | None) -> bool:
    return sampler is not None and bool(attribute(sampler, "replays", False))


def _rounds(spec: Spec, found: Collector) -> tuple[Round, ...]:
    schedule = spec.schedule
    with found.catch():
        rounds = cast(Schedule, build(schedule)).rounds()
        for problem in check_schedule(rounds):
            found.add(f"{schedule.where}: the schedule '{schedule.name}': {problem}")
        draws = [phase for one in rounds for phase in one.phases if isinstance(phase, Collect)]
        _check_opponent(spec, draws, found)
        if spec.sampler is not None and any(draw.reference_weight for draw in draws):
            check_mixes(f"the schedule '{schedule.name}'", spec.sampler, found)
        return rounds
    return ()


def _check_opponent(spec: Spec, draws: list[Collect], found: Collector) -> None:
    """A completion is judged against those of its own prompt, against an opponent's, or by a reward: one of them."""
    schedule, opponent = spec.schedule, any(draw.role == "opponent" for draw in draws)
    pairing = "pairing" in attribute(schedule, "reads", ())
    if attribute(schedule, "scores", False):
        if opponent or pairing:
            other = "draws an opponent's completions" if opponent else "reads a pairing"
            found.add(
                f"{schedule.where}: the schedule '{schedule.name}' has completions rewarded one by one, and {other}, "
                "too; one of them"
            )
    elif draws and opponent == pairing:
        found.add(
            f"{schedule.where}: the schedule '{schedule.name}' "
            + (
                "reads a pairing, which compares the policy's own completions, and draws an opponent's too; one of them"
                if opponent
                else "reads no pairing and draws no completions of an opponent, so that nothing can be compared; add "
                "Collect(..., role='opponent') to its rounds"
            )
        )


def _most(spec: Spec, found: Collector) -> Callable[[int], tuple[int, int]] | None:
    if spec.pairing is None or spec.sampler is None:
        return None
    with found.catch():
        most = cast(Pairing, build(spec.pairing)).most
        completions = spec.sampler.args.get("completions")
        if isinstance(completions, int):
            where = spec.places.get(("sampler", "completions"), spec.sampler.where)
            try:
                most(completions)
            except ValueError as error:
                problem = str(error).removeprefix("sampler.completions: ")
                found.add(f"{where_and_what(where, 'sampler.completions')}: {problem}")
        return most
    return None
