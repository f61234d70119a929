"""Loss: log-probs, anchors and β in; one value per pair or per example out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from nashtune.interfaces.batch import ExampleBatch, LossOutput, PairBatch, RowKind, Step


class Loss(ABC):
    """A preference loss. The mathematics is a pure function beside the class; the class holds hyper-parameters.

    The class attributes are read from the source without importing it, so they must be literals.

    Attributes:
        rows: What one value belongs to: "pairs" or "examples" (unpaired data).
        anchors: Names of the references whose log-probs the loss reads.
        uses_beta: Whether the loss multiplies by the KL controller's β; if not, a `kl` section beside it is an error.
        uses_p_chosen: Whether soft labels enter the loss.
        vector_inputs: Further inputs that a conformance vector may give, by name (see `read_vector`).
    """

    rows: ClassVar[RowKind] = "pairs"
    anchors: ClassVar[tuple[str, ...]] = ("ref",)
    uses_beta: ClassVar[bool] = True
    uses_p_chosen: ClassVar[bool] = False
    vector_inputs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __call__(self, batch: PairBatch | ExampleBatch, step: Step) -> LossOutput:
        """Values per pair or example, in the dtype of the log-probs."""

    def read_vector(self, batch: PairBatch | ExampleBatch, inputs: Mapping[str, Tensor]) -> PairBatch | ExampleBatch:
        """Put those of `vector_inputs` that a conformance vector gives into the batch (float64 tensors)."""
        return batch
