"""Reinforcement learning: each round draws from the live policy, scores, and updates it."""

from __future__ import annotations

from typing import ClassVar

from jsonargparse.typing import PositiveInt

from nashtune.interfaces.schedule import Anchor, Collect, Judge, Pair, Round, Schedule, Update


class OnPolicySchedule(Schedule):
    """Rollouts of the live policy, their rewards, their log-probs before the update, and the update.

    One optimiser goes on through all rounds. The rows of a round are its rollouts; `data.batch_size` times
    `trainer.accumulate_grad_batches` of them make an optimiser step, `trainer.max_epochs` passes over them an update.

    Args:
        steps: Rounds of rollouts and update, > 0.
    """

    reads: ClassVar[tuple[str, ...]] = ("oracle", "sampler")
    scores: ClassVar[bool] = True

    def __init__(self, *, steps: PositiveInt = 1000) -> None:
        self.steps = int(steps)

    def rounds(self) -> tuple[Round, ...]:
        """Every round is the same; its result is the live policy."""
        phases = (Collect(policy=None, reference_weight=0.0), Judge(), Pair(), Anchor(), Update(reset=False))
        return tuple(Round(phases=phases) for _ in range(self.steps))
