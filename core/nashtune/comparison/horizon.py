"""How far each training gets along its learning-rate schedule, known before it begins. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from nashtune.errors import InputError
from nashtune.interfaces.schedule import Update
from nashtune.spec.games import check_game
from nashtune.spec.model import OptimizerSpec, Spec
from nashtune.spec.plan import Plan


def lengths(spec: Spec, plan: Plan | None, steps: int | None) -> list[int]:
    """Optimiser steps of each learning-rate schedule of a training: one, or one for each update that begins anew.

    Args:
        spec: A spec.
        plan: Of a game.
        steps: Of the whole training; None for all that a game has planned.
    """
    declared = check_game(spec)
    if plan is None or declared is None:
        return [steps] if steps is not None else []
    left = sum(plan.steps_per_update) if steps is None else steps
    updates = [phase for one in declared.rounds for phase in one.phases if isinstance(phase, Update)]
    found: list[int] = []
    for update, planned in zip(updates, plan.steps_per_update, strict=True):
        if update.reset or not found:
            found.append(0)
        found[-1] += min(planned, left)
        left -= min(planned, left)
    return [one for one in found if one]


def refuse_short(optimizer: OptimizerSpec, steps: Sequence[int]) -> None:
    """Refuse a training whose warm-up is never over: it is compared at a fraction of its learning rate.

    Args:
        optimizer: Of the spec.
        steps: From `lengths`; nothing where they are not known.

    Raises:
        InputError: it never reaches its peak.
    """
    if not steps or any(optimizer.warmup_steps(one) < one for one in steps):
        return
    longest = max(steps)
    each = "a training" if len(steps) == 1 else "updates"
    share = "0.1" if longest > 1 else "0"
    raise InputError(
        f"optimizer.warmup: {optimizer.warmup_steps(longest)} steps of warm-up in {each} of {longest}: the learning "
        f"rate never reaches its peak of {optimizer.lr:g}; give all specs the same share of their run with "
        f"--spec.optimizer.warmup {share}, or a larger budget"
    )
