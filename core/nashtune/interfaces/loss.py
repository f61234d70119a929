"""Loss: log-probs, anchors and β in; one value per pair or per example out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from nashtune.interfaces.batch import LossBatch, LossOutput, RowKind, Step


class Loss(ABC):
    """A preference loss. The mathematics is a pure function beside the class; the class holds hyper-parameters.

    The class attributes are read from the source without importing it, so they must be literals.

    Attributes:
        rows: What one value belongs to: "pairs", "examples" (unpaired data) or "rollouts" (policy gradient).
        anchors: Names of the references whose log-probs the loss reads.
        uses_beta: Whether the loss multiplies by the KL controller's β; if not, a `kl` section beside it is an error.
        uses_p_chosen: Whether soft labels enter the loss.
        uses_win_rates: Whether it reads the win rates of both completions, so that a pairing must give them.
        mixes: Whether `reference_weight` may be above 0, so that the sampler must mix.
        vector_inputs: Further inputs that a conformance vector may give, by name (see `read_vector`).
    """

    rows: ClassVar[RowKind] = "pairs"
    anchors: ClassVar[tuple[str, ...]] = ("ref",)
    uses_beta: ClassVar[bool] = True
    uses_p_chosen: ClassVar[bool] = False
    uses_win_rates: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    vector_inputs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Values per pair or example, in the dtype of the log-probs."""

    def reference_weight(self, round: int) -> float | None:
        """Weight of the starting policy in the geometric mixture that the method's pairs are drawn from, in [0, 1].

        Args:
            round: Of the game, from 1.

        Returns:
            None where the method says nothing of it.
        """
        return None

    def gap_bound(self, rounds: int, divergence: float) -> tuple[str, float] | None:
        """What the method's theory says of the duality gap of the average policy: the formula, and its value.

        Args:
            rounds: T, the number of policies that are averaged, the starting one among them.
            divergence: D, the largest KL divergence of any policy from the starting one, in nats.

        Returns:
            None where the theory states no bound, or not for these settings.
        """
        return None

    def kl_bound(self, rounds: int) -> tuple[str, float] | None:
        """What theory says of KL(regularised Nash policy || last policy), in nats: the formula, and its value.

        Args:
            rounds: T, the number of policies, the starting one among them.

        Returns:
            None where the theory states no bound, or not for these settings.
        """
        return None

    def read_vector(self, batch: LossBatch, inputs: Mapping[str, Tensor]) -> LossBatch:
        """Put those of `vector_inputs` that a conformance vector gives into the batch (float64 tensors)."""
        return batch
