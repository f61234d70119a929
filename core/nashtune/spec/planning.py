"""Counts what a game will do before it starts: arithmetic on what schedule, sampler and pairing declare."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nashtune.data.prompts import prompts_in_round
from nashtune.errors import InputError
from nashtune.interfaces.schedule import Anchor, Collect, Judge, Round, Snapshot, Update
from nashtune.spec.overdrawn import Rounds, overdrawn
from nashtune.spec.plan import Plan

JOURNAL_BYTES = 24  # a token in the journal: its id, log-prob, kept mass and text


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a plan is made from, besides the rounds.

    Args:
        prompts: Training prompts.
        prompts_per_round: `data.prompts_per_round`.
        completions: The sampler's, of each prompt and collect phase.
        max_new_tokens: The sampler's, where it has one.
        draws: Completions that the sampler draws for each one that it returns.
        recorded: Whether completions come from a recording.
        most: The pairing's; None where the schedule trains on rollouts.
        one_step: Whether an update must be one optimiser step: its gradient is that of the policy that drew.
        judged_by: "comparisons", "scores" for an oracle that scores completions one by one, None without an oracle.
        anchored: What each reference is that anchor phases can score: "start" or "previous".
        live_references: References with weights of their own.
        batch_size: `data.batch_size`, in rows.
        accumulate: Micro-batches of an optimiser step.
        epochs: Passes over a round's rows in each update.
        max_steps: `trainer.max_steps`; below 0 for none.
        snapshot_bytes: Size of what is trained, where it is known.
        moments: Numbers that the optimiser keeps per weight.
        held_out: Prompts that every round's policy answers when the game is over.
        keep: Checkpoints that stay, `keep_checkpoints`.
    """

    prompts: int
    prompts_per_round: int | None = None
    completions: int
    max_new_tokens: int | None
    draws: int = 1
    recorded: bool = False
    most: Callable[[int], tuple[int, int]] | None
    one_step: bool = False
    judged_by: str | None = "comparisons"
    anchored: tuple[str, ...] = ()
    live_references: int = 0
    batch_size: int
    accumulate: int = 1
    epochs: int = 1
    max_steps: int = -1
    snapshot_bytes: int | None = None
    moments: int = 2
    held_out: int = 0
    keep: int = 1

    @property
    def per_prompt(self) -> tuple[int, int]:
        """Comparisons and training rows of a prompt, at most."""
        return self.most(self.completions) if self.most is not None else (self.completions, self.completions)

    @property
    def sequences(self) -> int:
        """Of a training row: both completions of a pair, or one rollout."""
        return 2 if self.most is not None else 1


def make_plan(rounds: Sequence[Round], setup: Setup) -> Plan:
    """Count what a game will do.

    Raises:
        InputError: the prompts cannot be dealt out to the rounds.
    """
    phases = [phase for one in rounds for phase in one.phases]
    count, per_round = len(rounds), setup.prompts_per_round
    dealt = [prompts_in_round(setup.prompts, count, per_round, t) for t in range(1, count + 1)]
    total = sum((_tally(one, prompts, setup) for one, prompts in zip(rounds, dealt, strict=True)), Counter[str]())
    updates = tuple(
        setup.epochs * math.ceil(prompts * setup.per_prompt[1] / (setup.batch_size * setup.accumulate))
        for one, prompts in zip(rounds, dealt, strict=True)
        for phase in one.phases
        if isinstance(phase, Update)
    )
    if setup.one_step and max(updates) > 1:
        size = max(dealt) * setup.per_prompt[1]
        raise InputError(one_step_message(size, setup.batch_size, setup.accumulate, setup.epochs))
    steps = sum(updates) if setup.max_steps < 0 else min(setup.max_steps, sum(updates))
    anchors = any(isinstance(phase, Anchor) for phase in phases)
    measured = anchors and setup.most is None  # rollouts meet their references once, before the update
    live = 0 if measured else setup.live_references + (0 if anchors else len(setup.anchored))
    snapshots = 1 + len({phase.name for phase in phases if isinstance(phase, Snapshot) and phase.average is None})
    averages = any(isinstance(phase, Snapshot) and phase.average is not None for phase in phases)
    policies = 1 + max(1, sum(one.policy is not None for one in rounds))
    return Plan(
        rounds=count,
        prompts=max(dealt),
        completions=setup.completions,
        steps=steps,
        steps_per_update=updates,
        generations=total["generations"],
        max_new_tokens=setup.max_new_tokens,
        judgements=total["judgements"],
        judged_by=setup.judged_by,
        rows=sum(dealt) * setup.per_prompt[1],
        kind="pairs" if setup.most is not None else "rollouts",
        training_passes=total["training"],
        anchor_passes=total["anchors"],
        reference_passes=total["training"] * live,
        snapshots=snapshots,
        answers=setup.held_out * policies,
        comparisons=setup.held_out * policies * (policies - 1) // 2 if setup.judged_by else 0,
        snapshot_bytes=setup.snapshot_bytes,
        disk_bytes=_disk_bytes(setup, snapshots, averages, total["kept"] * (setup.max_new_tokens or 0)),
        ended_early=steps < sum(updates),
        overdrawn=overdrawn(_drawn(rounds, dealt, setup), setup.max_steps),
    )


def _drawn(rounds: Sequence[Round], dealt: Sequence[int], setup: Setup) -> Rounds:
    return Rounds(
        prompts=dealt,
        updates=updates_of(rounds),
        completions=setup.completions,
        rows=setup.per_prompt[1],
        kind="pairs" if setup.most is not None else "rollouts",
        step_rows=setup.batch_size * setup.accumulate,
        epochs=setup.epochs,
    )


def updates_of(rounds: Sequence[Round]) -> list[int]:
    """How many updates each round has."""
    return [sum(isinstance(phase, Update) for phase in one.phases) for one in rounds]


def one_step_message(size: int, batch_size: int, accumulate: int, epochs: int) -> str:
    """What to say where an update of a policy-gradient method would take more than one optimiser step."""
    return (
        f"data.prompts_per_round: a round makes {size} rollouts, and an optimiser step takes {batch_size * accumulate} "
        f"of them (data.batch_size {batch_size} x trainer.accumulate_grad_batches {accumulate}, {epochs} pass(es)). "
        "This method's gradient is that of the policy that drew them, so a round is one optimiser step: give fewer "
        f"prompts, or --trainer.accumulate_grad_batches {math.ceil(size / batch_size)}, with --trainer.max_epochs 1"
    )


def _tally(declared: Round, prompts: int, setup: Setup) -> Counter[str]:
    """Generations, judgements and forward passes of a round."""
    tally: Counter[str] = Counter()
    comparisons, rows = setup.per_prompt
    for phase in declared.phases:
        match phase:
            case Collect():
                tally["kept"] += prompts * setup.completions
                tally["generations"] += 0 if setup.recorded else prompts * setup.completions * setup.draws
            case Judge() if setup.judged_by == "scores":
                tally["judgements"] += tally["kept"]
            case Judge() if setup.judged_by:
                tally["judgements"] += prompts * comparisons
            case Anchor() if setup.most is None:
                tally["anchors"] += prompts * rows * (1 + len(setup.anchored) + setup.live_references)
            case Anchor():
                tally["anchors"] += prompts * rows * setup.sequences * _scored(phase, setup.anchored)
            case Update():
                tally["training"] += setup.epochs * prompts * rows * setup.sequences
    if setup.draws > 1 and setup.judged_by == "scores":
        tally["judgements"] += tally["generations"]  # scored to choose the best
    return tally


def _scored(phase: Anchor, anchored: Sequence[str]) -> int:
    """Snapshots whose log-probs an anchor phase computes; one that two references need counts once."""
    names = {"start"} if "start" in anchored else set()
    return len(names | set(phase.previous) if "previous" in anchored else names)


def _disk_bytes(setup: Setup, snapshots: int, averages: bool, tokens: int) -> int | None:
    if setup.snapshot_bytes is None:
        return None
    checkpoint = 1 + setup.moments + averages
    # an older checkpoint goes when the newer one is whole; one more for the exported model
    return setup.snapshot_bytes * (snapshots + (1 + setup.keep) * checkpoint + 1) + JOURNAL_BYTES * tokens
