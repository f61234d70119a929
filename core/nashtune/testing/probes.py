"""A loss that belongs to no paper, with which a schedule is tried on small games."""

from __future__ import annotations

from typing import ClassVar, cast

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step


class Probe(Loss):
    """Squared distance of the log-ratio difference from half a step: the minimiser is a mirror step."""

    anchors: ClassVar[tuple[str, ...]] = ("anchor",)
    uses_beta: ClassVar[bool] = False
    mixes: ClassVar[bool] = True

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """One value per pair (B,)."""
        chosen_B, rejected_B = cast(PairBatch, batch).log_ratios("anchor")
        return LossOutput(values=(chosen_B - rejected_B - step.scale / 2.0) ** 2)
