"""What each training of a comparison has spent, of every kind of budget, and what it took. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from nashtune.comparison.budget import KINDS, Budget
from nashtune.comparison.spent_file import read_spent
from nashtune.pipeline.fit_command import read_report

if TYPE_CHECKING:
    from nashtune.comparison.plan import Entry

NEAR_PEAK = 0.95
"""Share of the peak learning rate below which a remark is made: the step before the peak has almost all of it."""

WAY_OUT = (
    ": its rounds have no more rows (ties, and pairs on whose winner not all agree, give none); more of them by "
    "--spec.schedule.rounds N or --data.prompts_per_round N"
)
TOO_MUCH = 1.1
"""Share of the budget above which a remark is made."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one training.

    Args:
        policy: The spec's name.
        seed: Of the training.
        steps: Optimiser steps.
        tokens: Tokens of the sequences that carried a gradient, without padding.
        generations: Completions that were drawn for training.
        judgements: Completions that an oracle has scored, and pairs that it has compared, for training.
        seconds: Inside training batches, over all attempts; phases of a game between them are not in it.
        tokens_per_second: Of the two above.
        peak_memory_gib: Of the attempt that ended the training.
        wall_seconds: From the loading of the weights to the last checkpoint, over all attempts: drawing and judging are
            in it. None where a file of another version does not say it.
        lr_share: Largest learning rate of a step, as a share of its peak, in [0, 1]; likewise.
        other_tokens: Tokens of sequences that went through the policy without a gradient, as KTO's mismatched ones.
        untrained: Why nothing was trained; None where something was.
    """

    policy: str
    seed: int
    steps: int
    tokens: int
    generations: int
    judgements: int
    seconds: float
    tokens_per_second: float
    peak_memory_gib: float
    wall_seconds: float | None = None
    lr_share: float | None = None
    other_tokens: int = 0
    untrained: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `comparison.json`."""
        return asdict(self)


def cost_of(entry: Entry, seed: int, run: Path) -> Cost:
    """Of a run of a comparison that has ended, with a model or without one.

    Args:
        entry: The spec.
        seed: Of the run.
        run: The run folder.

    Raises:
        InputError: its report cannot be read.
    """
    report = read_report(run)
    untrained = report.get("untrained")
    # without an optimiser step there was no checkpoint, and nothing was written of tokens and time
    spent = read_spent(run) if untrained is None else {"tokens": 0, "seconds": 0.0, "other_tokens": 0}
    return Cost(
        policy=entry.name,
        seed=seed,
        steps=int(report["steps"]),
        tokens=int(spent["tokens"]),
        generations=_rows(run, "completions-*") * entry.draws_of_one,
        judgements=_rows(run, "judgements-*") + _rows(run, "scores-*"),
        seconds=float(spent["seconds"]),
        tokens_per_second=float(spent["tokens"]) / max(float(spent["seconds"]), 1e-9),
        peak_memory_gib=float(report["throughput"]["peak_memory_gib"]),
        wall_seconds=spent.get("wall_seconds"),
        lr_share=spent.get("lr_share"),
        other_tokens=int(spent["other_tokens"]),
        untrained=untrained,
    )


def _rows(run: Path, name: str) -> int:
    """Rows of all tables of that name in a game's journal."""
    files = sorted((run / "journal").glob(f"round-*/{name}.parquet"))
    return sum(pq.read_metadata(file).num_rows for file in files)


def spent_by_policy(budget: Budget, costs: Sequence[Cost]) -> dict[str, dict[str, Any]]:
    """What each policy has spent, of every kind, and how much of the budget was asked for.

    Args:
        budget: The comparison's.
        costs: Of all trainings.

    Returns:
        By policy {"steps", "tokens", "generations": of the seed that has spent the least, "of": {kind: amount}, empty
        without a budget}.
    """
    asked = {budget.kind: budget.amount} if budget.kind in KINDS else {}
    return {
        policy: {**{kind: min(getattr(one, kind) for one in own) for kind in KINDS}, "of": asked}
        for policy, own in by_policy(costs).items()
    }


def unspent(budget: Budget, costs: Sequence[Cost]) -> list[str]:
    """Who has spent less of the budget than it allows, in sentences; a game's rounds, or its pairs, were too few.

    Args:
        budget: The comparison's.
        costs: Of all trainings.
    """
    return [
        f"{policy} has spent {spent[kind]} of {amount} {kind}, and is compared all the same"
        + WAY_OUT * _drew(costs, policy)
        for policy, spent in spent_by_policy(budget, costs).items()
        for kind, amount in spent["of"].items()
        if spent[kind] < amount
    ]


def _drew(costs: Sequence[Cost], policy: str) -> bool:
    return any(one.generations for one in costs if one.policy == policy)


def overspent(budget: Budget, costs: Sequence[Cost]) -> list[str]:
    """Who has spent clearly more of the budget than it allows, in sentences: a training ends with a whole step.

    Args:
        budget: The comparison's.
        costs: Of all trainings.
    """
    if budget.kind not in KINDS:
        return []
    most = {policy: max(getattr(one, budget.kind) for one in own) for policy, own in by_policy(costs).items()}
    return [
        f"{policy} has spent {spent} of {budget.amount} {budget.kind}, {100 * spent / budget.amount - 100:.0f} % more: "
        "a training ends with the step that passes the budget (fewer rows a step or a larger budget make it more even)"
        for policy, spent in most.items()
        if spent > TOO_MUCH * budget.amount
    ]


def short_of_peak(costs: Sequence[Cost]) -> list[str]:
    """Whose learning rate has not come near its peak, in sentences.

    Args:
        costs: Of all trainings.
    """
    notes = []
    for policy, own in by_policy(costs).items():
        shares = [one.lr_share for one in own if one.lr_share is not None]
        if shares and min(shares) < NEAR_PEAK:
            notes.append(
                f"{policy} has reached {100 * min(shares):.0f} % of its peak learning rate: its warm-up is too long "
                "for what it was given (--spec.optimizer.warmup 0.1)"
            )
    return notes


def phases(costs: Sequence[Cost], sampling: float, judging: float) -> dict[str, float]:
    """Seconds of the parts of a comparison, over all attempts, for `comparison.json`.

    Args:
        costs: Of all trainings.
        sampling: Of the policies' answers, and their log-probs.
        judging: Of the judge.
    """
    training = sum(one.wall_seconds for one in costs if one.wall_seconds is not None)
    parts = {"training_s": training, "sampling_s": sampling, "judging_s": judging}
    return {**parts, "total_s": sum(parts.values())}


def by_policy(costs: Sequence[Cost]) -> Mapping[str, list[Cost]]:
    """The costs of each policy's trainings."""
    found: dict[str, list[Cost]] = {}
    for one in costs:
        found.setdefault(one.policy, []).append(one)
    return found
