"""What a game will do, in numbers and in words: steps, generations, judgements, forward passes, disk.

Numbers are upper limits: ties and inconsistent tournaments make fewer pairs, EOS ends completions early.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A game in numbers, at most.

    Args:
        rounds: Rounds.
        prompts: Prompts of a round (the largest one).
        completions: Completions of each prompt and collect phase.
        steps: Optimiser steps of the whole run.
        steps_per_update: Optimiser steps of each update, in order.
        generations: Completions drawn.
        max_new_tokens: Longest completion, in tokens; None where the sampler has no such limit.
        judgements: Comparisons that the oracle is asked for, or completions that it scores.
        judged_by: "comparisons" or "scores"; None where a recording brings them.
        rows: Training rows of all rounds: pairs, or rollouts.
        kind: "pairs" or "rollouts".
        training_passes: Sequences that go through the policy forward and backward.
        anchor_passes: Sequences that are scored once before an update: pairs under frozen snapshots, rollouts under the
            policy that drew them and the references.
        reference_passes: Sequences that references with weights of their own score while the policy trains.
        snapshots: Weights kept on disk, the start's included.
        answers: Answers to held-out prompts when the game is over.
        comparisons: Pairs of them that are compared; the oracle is asked for each in both orders.
        snapshot_bytes: Size of one; None where it is not known before the model is ready.
        disk_bytes: Snapshots, checkpoints, exported model and journal together.
        ended_early: Whether `trainer.max_steps` ends the run before its last round is over.
        overdrawn: What to say where a round draws far more than its steps use before that; else None.
    """

    rounds: int
    prompts: int
    completions: int
    steps: int
    steps_per_update: tuple[int, ...]
    generations: int
    max_new_tokens: int | None
    judgements: int
    judged_by: str | None
    rows: int
    kind: str
    training_passes: int
    anchor_passes: int
    reference_passes: int
    snapshots: int
    answers: int
    comparisons: int
    snapshot_bytes: int | None
    disk_bytes: int | None
    ended_early: bool
    overdrawn: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `steps_per_update` as the fewest and the most, with the number of updates."""
        values = {**asdict(self), "updates": len(self.steps_per_update)}
        values["steps_per_update"] = [min(self.steps_per_update), max(self.steps_per_update)]
        return values

    def lines(self) -> list[str]:
        """For people, a sentence each."""
        limit = f" of at most {self.max_new_tokens} tokens" if self.max_new_tokens is not None else ""
        judged = f"at most {self.judgements} {self.judged_by}" if self.judged_by else "as recorded"
        largest, smallest = max(self.steps_per_update), min(self.steps_per_update)
        each = f"{largest}" if largest == smallest else f"{smallest} to {largest}"
        updates = f"{count(len(self.steps_per_update), 'update')} of {each}"
        live = f", {self.reference_passes} by references that stay loaded" if self.reference_passes else ""
        lines = [
            f"game: {count(self.rounds, 'round')} of {count(self.prompts, 'prompt')}, "
            f"{count(self.completions, 'completion')} each",
            f"steps: at most {self.steps} in all, {updates}",
            f"generations: {self.generations} completions{limit}" if self.generations else "generations: as recorded",
            f"judgements: {judged}; they make at most {self.rows} {self.kind}",
            f"forward passes: at most {self.training_passes} sequences in training, {self.anchor_passes} once before "
            f"the updates{live}",
            f"disk: {self._disk()}",
        ]
        if self.answers:
            lines.insert(
                -1,
                f"at the end: {self.answers} answers to held-out prompts, {self.comparisons} comparisons of them, each "
                "in both orders",
            )
        if self.ended_early:
            lines.append(
                f"note: trainer.max_steps {self.steps} ends the game before its last round is over; "
                f"all of it has at most {sum(self.steps_per_update)} steps"
            )
        if self.overdrawn:
            lines.append(f"note: {self.overdrawn}")
        return lines

    def _disk(self) -> str:
        if self.snapshot_bytes is None or self.disk_bytes is None:
            return f"{count(self.snapshots, 'snapshot')}; the size is known when the model is ready"
        return (
            f"{count(self.snapshots, 'snapshot')} of {size(self.snapshot_bytes)}; at most {size(self.disk_bytes)} with "
            "checkpoints, exported model and journal"
        )


def count(number: int, what: str) -> str:
    """A number of things: "1 round", "3 rounds"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Bytes for people: "1.6 GB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number} bytes"
