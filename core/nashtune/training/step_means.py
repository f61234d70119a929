"""What training measured: told to the KL controller and the loss after each step, and read when a row is logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nashtune.evaluation.metrics import Means
from nashtune.interfaces.kl import watches

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces import KLController, Loss, LossOutput, TokenBatch


class StepMeans:
    """Means over the pairs of training steps, on all ranks.

    Args:
        parts: KL controller and loss; those that watch the steps are told of each.
    """

    def __init__(self, parts: Sequence[KLController | Loss]) -> None:
        self._told = [one for one in parts if watches(one)]
        self._window = Means()  # of the optimiser step, where anybody is told of it
        self._interval = Means()  # of the steps since a row was logged

    def update(self, output: LossOutput, batch: TokenBatch, *, tokens: int | None, counts: bool) -> None:
        """Add a pass; see `Means.update`.

        Args:
            output: Of the pass.
            batch: The pass.
            tokens: Its completion tokens, where the loss is a mean over them.
            counts: False for rows that only keep the ranks in step.
        """
        means = self._window if self._told else self._interval
        means.update(output, len(batch), kind=batch.kind, p_chosen=batch.p_chosen, tokens=tokens, counts=counts)

    def end_step(self) -> None:
        """The optimiser's step is over: tell what happened over all of its pairs."""
        if not self._told:
            return
        seen = self._window.tensors()
        for part in self._told:
            part.observe(seen)
        self._interval.absorb(self._window)

    def read(self, flag: Tensor | None) -> tuple[dict[str, float], bool]:
        """The means since the last call, and whether the flag is up on any rank; see `Means.read`."""
        return self._interval.read(flag)

    def state_dict(self) -> dict[str, Any]:
        """What the next row will have of the steps so far. Waits for the device; collective."""
        return self._interval.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what was saved, perhaps nothing."""
        self._interval.load_state_dict(state)
