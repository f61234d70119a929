"""How held-out rows are measured: without gradient and without rounding, as means and as verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from nashtune.evaluation.metrics import Means
from nashtune.evaluation.reward_scores import HeldOut, HeldOutScores
from nashtune.notes import note

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from nashtune.interfaces import Loss, LossOutput, TokenBatch


class HeldOutMeasures:
    """What held-out rows say of the policy.

    Args:
        loss: The spec's; of what is trained to judge, each verdict is kept.
        attention: `policy.attention`.
    """

    def __init__(self, loss: Loss, attention: str) -> None:
        self._means = Means()
        comparisons = loss.rows == "comparisons"
        self._verdicts = HeldOut(comparisons=comparisons) if loss.reads == "scores" or comparisons else None
        self._attention = attention
        self._said_rounded = False

    @contextmanager
    def context(self, trainer: Trainer, device: torch.device) -> Iterator[None]:
        """No gradient and no autocast: rounding to 16 bits is a hundred times what held-out rows have to show.

        FlashAttention alone reads nothing but 16 bits, so with it autocast stays.
        """
        context: AbstractContextManager[Any] = torch.autocast(device.type, enabled=False)
        if self._attention.startswith("flash_attention") and str(trainer.precision).endswith("-mixed"):
            if not self._said_rounded:
                note(
                    f"policy.attention: {self._attention} takes 16 bits alone, so held-out rows are rounded as "
                    "training rows are, and their KL and losses are noise below about 0.1 nats; sdpa measures them in "
                    "float32"
                )
            self._said_rounded = True
            context = trainer.precision_plugin.forward_context()
        with torch.no_grad(), context:
            yield

    def update(self, batch: TokenBatch, output: LossOutput) -> None:
        """Add a pass."""
        self._means.update(output, len(batch), kind=batch.kind, p_chosen=batch.p_chosen)
        if self._verdicts is not None:
            self._verdicts.update(batch, output)

    def compute_and_reset(self) -> tuple[dict[str, float], HeldOutScores | None]:
        """Means and verdicts over what was added on all ranks, and start again; collective.

        No verdicts where the policy is not trained to judge, and where no row was added.
        """
        means = self._means.compute_and_reset()
        return means, self._verdicts.compute_and_reset() if self._verdicts is not None else None
