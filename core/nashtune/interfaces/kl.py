"""KL controller: gives β and reacts to what happened.

Legend: B = pairs, M = completion tokens, V = vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import LossBatch


class KLController(ABC):
    """Gives the inverse temperature β of the KL-regularised objective.

    Attributes:
        statistics: Names of the per-token statistics the controller needs from full-vocabulary logits. When it is not
            empty, the reference `ref` must be live (it must give logits) and `token_statistics` is called per tile.
        vector_inputs: Further inputs that a conformance vector may give, by name (see `read_vector`).
    """

    statistics: ClassVar[tuple[str, ...]] = ()
    vector_inputs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def beta(self, batch: LossBatch) -> Tensor:
        """β for this batch, > 0: a scalar or one value per pair (B,). Carries no gradient; never changes state."""

    def token_statistics(self, policy_logits_MV: Tensor, ref_logits_MV: Tensor, targets_M: Tensor) -> dict[str, Tensor]:
        """One value per completion token (M,) for each name in `statistics`; float32 or wider, without gradient.

        The engine sums them over each completion and hands the sums to `beta` in the batch.
        """
        return {}

    def report(self, batch: LossBatch, beta: Tensor) -> dict[str, Tensor]:
        """Values per pair whose means are logged and, in training, handed to `observe`."""
        return {}

    def observe(self, means: Mapping[str, float]) -> None:
        """Called once after each optimiser step with the means of `report` over its pairs, on all ranks."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: numbers only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        return None

    def read_vector(self, batch: LossBatch, inputs: Mapping[str, Tensor]) -> LossBatch:
        """Put those of `vector_inputs` that a conformance vector gives into the batch (float64 tensors)."""
        return batch

    def write_vector(self, batch: LossBatch, beta: Tensor) -> dict[str, Tensor]:
        """What a conformance vector of this controller shows besides loss and gradients."""
        return {}
