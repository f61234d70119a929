"""Trainings of a comparison whose policies there are, and those whose policies there are not, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.comparison.folder import SO_FAR, run_folder
from nashtune.errors import InputError
from nashtune.pipeline.fit_command import REPORT, can_go_on, finished, read_report

if TYPE_CHECKING:
    from nashtune.comparison.plan import Entry

NOT_BEGUN, STOPPED = "not trained yet", "its training was stopped"
"""Why a policy is missing, where nothing is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A policy that does not take part.

    Args:
        policy: Name of the spec.
        seed: Of the training.
        why: `NOT_BEGUN`, `STOPPED`, or why a training that has ended has trained nothing.
        untrained: Whether it has ended, without an optimiser step: its weights are the start's, and nobody may take
            them for a result.
    """

    policy: str
    seed: int
    why: str
    untrained: bool

    def as_dict(self) -> dict[str, Any]:
        """For `comparison.json`."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """Of a comparison, by spec and seed, in the order in which they are trained.

    Args:
        done: Those with a policy.
        missing: The others.
    """

    done: tuple[tuple[str, int], ...]
    missing: tuple[Missing, ...]

    @property
    def ended(self) -> list[tuple[str, int]]:
        """Those with a policy and those that have ended without."""
        return [*self.done, *((one.policy, one.seed) for one in self.missing if one.untrained)]


def trainings(specs: Sequence[str], seeds: Sequence[int], folder: Path) -> Trainings:
    """What became of the trainings so far.

    Args:
        specs: Names.
        seeds: Of each.
        folder: The comparison's own.
    """
    done, missing = [], []
    for seed in seeds:
        for name in specs:
            run = run_folder(folder, name, seed)
            if finished(run):
                done.append((name, seed))
                continue
            nothing = untrained_run(run)
            why = nothing or (STOPPED if can_go_on(run) else NOT_BEGUN)
            missing.append(Missing(policy=name, seed=seed, why=why, untrained=nothing is not None))
    return Trainings(done=tuple(done), missing=tuple(missing))


def untrained_run(run: Path) -> str | None:
    """Why a training that has ended has trained nothing; None where it has trained, or has not ended.

    Args:
        run: The run folder; a training without an optimiser step leaves its report there, and no model.
    """
    if finished(run) or not (run / REPORT).is_file():
        return None
    why: str | None = read_report(run).get("untrained")
    return why


def so_far_notes(found: Trainings) -> list[str]:
    """What a comparison that has not ended lacks, in a sentence; none where nothing is to be trained any more.

    Args:
        found: Its trainings.
    """
    left = [one for one in found.missing if not one.untrained]
    if not left:
        return []
    total = len(found.done) + len(found.missing)
    names = ", ".join(f"{one.policy} with seed {one.seed} ({one.why})" for one in left)
    return [
        f"this comparison has not ended: {len(left)} of {total} trainings are missing, {names}. Everything here is of "
        f"the start and the {len(found.done)} policies that there are, and may change"
    ]


def untrained_notes(found: Trainings) -> list[str]:
    """In which trainings nothing was trained, in sentences.

    Args:
        found: Of a comparison.
    """
    seeds: dict[tuple[str, str], list[str]] = {}
    for one in found.missing:
        if one.untrained:
            seeds.setdefault((one.policy, one.why), []).append(str(one.seed))
    return [
        f"{policy}: nothing was trained with seed {', '.join(own)}: {why}. Its weights are the start's, and it is not "
        "rated"
        for (policy, why), own in seeds.items()
    ]


def choose_so_far(specs: Sequence[str], seeds: Sequence[int], home: Path) -> Path:
    """The folder of what a comparison comes to before it has ended: verdicts on fewer policies, for themselves.

    Args:
        specs: Names.
        seeds: Of each.
        home: The comparison's folder.

    Raises:
        InputError: there is no policy yet, or nothing is left to be trained.
    """
    found = trainings(specs, seeds, home)
    refuse_none(found, home)
    total = len(found.done) + len(found.missing)
    if len(found.ended) == total:
        raise InputError(
            f"--so_far: all {total} trainings of {home} have ended, so that nothing is missing but answers and "
            f"verdicts; nashtune compare --run_dir {home} gets them"
        )
    return home / SO_FAR / f"{len(found.ended)}-of-{total}"


def refuse_none(found: Trainings, folder: Path) -> None:
    """See that there is a policy to be compared with the start.

    Args:
        found: Trainings of a comparison.
        folder: Its own.

    Raises:
        InputError: there is none.
    """
    if found.done:
        return
    nothing = [one for one in found.missing if one.untrained]
    if len(nothing) < len(found.missing):
        raise InputError(
            f"{folder}: no training has ended with a model yet, so there is nothing to compare; go on with: nashtune "
            f"compare --run_dir {folder}"
        )
    raise InputError(
        f"{folder}: none of the {len(nothing)} trainings has trained anything, so there is nothing to compare: "
        f"{'; '.join(untrained_notes(found)[:3])}. Begin another comparison, with other settings"
    )


def ended(entries: Sequence[Entry], found: Trainings) -> Iterator[tuple[Entry, int]]:
    """Each spec with the seeds whose training has ended, with a policy or without."""
    for entry in entries:
        for name, seed in sorted(found.ended):
            if name == entry.name:
                yield entry, seed
