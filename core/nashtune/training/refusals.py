"""What stops a run before it goes wrong in silence: numbers that are not finite, schedules that nothing executes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import LossOutput, Schedule, TokenBatch
from nashtune.schedules.offline import OfflineSchedule

WHAT_TO_DO = (
    "Nothing was updated by this step. Look at the rows, and start a new run with a lower learning rate "
    "(--spec.optimizer.lr), gradient clipping (--trainer.gradient_clip_val 1.0) or fp32 (--policy.precision fp32)"
)


def refuse_non_finite(output: LossOutput, batch: TokenBatch, step: int, where: Callable[[int], str]) -> None:
    """Stop where the loss of a row is not finite.

    Args:
        output: Of a micro-batch.
        batch: The micro-batch.
        step: Optimiser steps done.
        where: Place of a training row, for the message.

    Raises:
        InputError: names the rows.
    """
    bad = ~torch.isfinite(output.values.detach())
    if not bool(bad.any()):
        return
    owners = batch.rows.repeat(bad.shape[0] // len(batch))
    rows = [where(int(row)) for row in owners[bad.to(owners.device)][:5]]
    raise InputError(
        f"step {step}: the loss is not finite on {int(bad.sum())} of {len(batch)} rows: {', '.join(rows)}. {WHAT_TO_DO}"
    )


def refuse_non_finite_gradient(gradients: Sequence[Tensor], step: int) -> None:
    """Stop before a gradient that is not finite reaches the weights.

    Raises:
        InputError: one is not.
    """
    if not bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients))):
        raise InputError(f"step {step}: the gradient is not finite, though the loss is. {WHAT_TO_DO}")


def refuse_other_schedules(schedule: Schedule, name: str) -> None:
    """Without a sampler there is one data set, and one round over it; anything else must not pass for it.

    Raises:
        InputError: the schedule declares something else.
    """
    rounds = schedule.rounds()
    if rounds != OfflineSchedule().rounds():
        phases = "; ".join(", ".join(type(phase).__name__.lower() for phase in one.phases) for one in rounds)
        raise InputError(
            f"spec.schedule: '{name}' draws no completions and declares {len(rounds)} round(s) ({phases}); without a "
            "sampler there is one round of anchor, update: use schedule: offline"
        )
