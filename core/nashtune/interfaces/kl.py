"""KL controller: gives β and reacts to what happened.

Legend: B = pairs, S = rollouts, M = completion tokens, V = vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nashtune.interfaces.loss import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import LossBatch, RowKind
    from nashtune.interfaces.rollouts import RolloutBatch


class KLController(ABC):
    """Gives the inverse temperature β of the KL-regularised objective.

    Attributes:
        statistics: Names of the per-token statistics the controller needs from full-vocabulary logits. When it is not
            empty, the reference `ref` must be live (it must give logits) and `token_statistics` is called per tile.
        uses_variance: Whether β depends on the variance of the rewards, so that the oracle must know it.
        beta_per_side: Whether β of a pair differs between chosen and rejected, so that the loss must take it so.
        rows: Kinds of rows that it gives β for, as `Loss.rows` names them, such as `("pairs",)`; empty: any. A loss on
            other rows is refused before anything is loaded. One that reads `statistics` works on pairs alone.
        anchors: Names of the references whose log-probs it reads.
        compares_rows: Whether β of a pair depends on the pairs beside it, so that a micro-batch is one pass.
        vector_inputs: Further inputs that a conformance vector may give, by name (see `read_vector`).
    """

    statistics: ClassVar[tuple[str, ...]] = ()
    uses_variance: ClassVar[bool] = False
    beta_per_side: ClassVar[bool] = False
    rows: ClassVar[tuple[RowKind, ...]] = ()
    anchors: ClassVar[tuple[str, ...]] = ()
    vector_inputs: ClassVar[tuple[str, ...]] = ()
    compares_rows: ClassVar[bool] = False

    @abstractmethod
    def beta(self, batch: LossBatch) -> Tensor:
        """β for this batch, > 0: a scalar, or one value per pair (B,) or rollout (S,). No gradient; changes no state.

        With `beta_per_side`, pairs get (B, 2): chosen, rejected. In reinforcement learning it is asked once before each
        update, with all of the update's rollouts.
        """

    def reward(self, batch: RolloutBatch, beta: Tensor) -> Tensor:
        """The score that a policy gradient uses (S,): the oracle's, unless the controller's objective changes it."""
        return batch.score

    def token_statistics(self, policy_logits_MV: Tensor, ref_logits_MV: Tensor, targets_M: Tensor) -> dict[str, Tensor]:
        """One value per completion token (M,) for each name in `statistics`; float32 or wider, without gradient.

        The engine sums them over each completion and hands the sums to `beta` in the batch.
        """
        return {}

    def report(self, batch: LossBatch, beta: Tensor) -> dict[str, Tensor]:
        """Values per pair or rollout whose means are logged and, in training, handed to `observe`."""
        return {}

    def observe(self, means: Mapping[str, Tensor]) -> None:
        """Called once after each optimiser step with the means of `report` over its pairs, on all ranks.

        They are float64 scalars on the device of the step: a controller that keeps its β there as well costs no wait
        for the device, where `float(means[...])` waits at every step. Not in reinforcement learning, where β belongs to
        a whole update: there it is `observe_round`.
        """
        return None

    def check_round(self, completions: int) -> None:
        """Called before the policy loads with the most completions that an update on rollouts will have.

        Raises:
            InputError: the controller cannot work with so many, or so few.
        """
        return None

    def observe_round(self, means: Mapping[str, float], completions: int) -> None:
        """Called once after each update on rollouts that have rewards.

        Args:
            means: Of `report`, over all of the update's completions, as they were before its first step.
            completions: How many these are.
        """
        return None

    def setpoint(self) -> float | None:
        """KL divergence that it steers to, in nats per completion; None where it steers to none."""
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


def watches(part: KLController | Loss) -> bool:
    """Whether a controller or a loss reads what happened at an optimiser step."""
    interface = KLController if isinstance(part, KLController) else Loss
    return type(part).observe is not interface.observe
