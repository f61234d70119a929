"""Squared distance of the reward margin from a target."""

from __future__ import annotations

from typing import ClassVar

import torch
from jsonargparse.typing import PositiveFloat

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step


class SquareLoss(Loss):
    """Squared distance of the reward margin from a target.

    Args:
        target: Margin to reach, in nats, > 0.
    """

    anchors: ClassVar[tuple[str, ...]] = ("ref",)

    def __init__(self, *, target: PositiveFloat = 1.0) -> None:
        self.target = float(target)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss and rewards beta h of each pair (B,)."""
        assert isinstance(batch, PairBatch) and isinstance(step.beta, torch.Tensor)
        chosen_B, rejected_B = (step.beta * h_B for h_B in batch.log_ratios())
        return LossOutput(
            values=(chosen_B - rejected_B - self.target) ** 2,
            reward_chosen=chosen_B.detach(),
            reward_rejected=rejected_B.detach(),
        )
