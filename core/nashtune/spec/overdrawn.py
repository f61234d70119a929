"""Whether a round of a game draws far more than the optimiser steps can use before `trainer.max_steps` ends the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ENOUGH = 0.5
"""Share of a round's rows that its steps must reach at least; below it, most of what was drawn trains nothing."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What is drawn in a game, and how much of it an optimiser step takes.

    Args:
        prompts: Of each round.
        updates: Of each round, likewise.
        completions: Drawn for each prompt.
        rows: Training rows that a prompt makes, at most.
        kind: What those are, "pairs" or "rollouts".
        step_rows: Rows of an optimiser step, of all ranks.
        epochs: Passes over a round's rows in each update.
    """

    prompts: Sequence[int]
    updates: Sequence[int]
    completions: int
    rows: int
    kind: str
    step_rows: int
    epochs: int = 1


def overdrawn(rounds: Rounds, max_steps: int) -> str | None:
    """What to say of the round in which `max_steps` ends the run; None where it has a use for what it draws.

    Args:
        rounds: The game.
        max_steps: `trainer.max_steps`; below 0 for none.
    """
    if max_steps < 0:
        return None
    left = max_steps
    for number, (prompts, updates) in enumerate(zip(rounds.prompts, rounds.updates, strict=True), start=1):
        steps = updates * rounds.epochs * math.ceil(prompts * rounds.rows / rounds.step_rows)
        if left < steps:
            return _said(rounds, max_steps, number, prompts, steps, left)
        left -= steps
    return None


def _said(rounds: Rounds, max_steps: int, number: int, prompts: int, steps: int, left: int) -> str | None:
    """Of the round that ends after `left` of its steps."""
    rows = prompts * rounds.rows
    used = min(rows, left * rounds.step_rows)
    if left == 0 or used >= ENOUGH * rows:  # with no step left, the round does not begin
        return None
    return (
        f"round {number} of {len(rounds.prompts)} draws {prompts} prompts x {rounds.completions} completions, and "
        f"trainer.max_steps {max_steps} ends the run after {left} of that round's {steps} steps, with {used} of its "
        f"{rows} {rounds.kind} at most; {_instead(rounds, max_steps)}"
    )


def _instead(rounds: Rounds, max_steps: int) -> str:
    """How many prompts a round would need for all rounds to be played in these steps."""
    each = max_steps // sum(rounds.updates) // rounds.epochs * rounds.step_rows // rounds.rows
    if each < 1:
        return "give fewer prompts a round (--data.prompts_per_round), or more steps"
    return f"with --data.prompts_per_round {each} all {len(rounds.prompts)} rounds are played in these steps"
