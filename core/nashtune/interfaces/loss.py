"""Loss: log-probs, anchors and β in; one value per pair or per example out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from nashtune.interfaces.batch import LossBatch, LossOutput, RowKind, Step
    from nashtune.interfaces.rollouts import Advantages, RolloutBatch


class Loss(ABC):
    """A preference loss. The mathematics is a pure function beside the class; the class holds hyper-parameters.

    The class attributes are read from the source without importing it, so they must be literals.

    Attributes:
        rows: What one value belongs to: "pairs", "examples" (unpaired data), "rollouts" (policy gradient), "ranked"
            (K-wise lists) or "comparisons" (pairs whose prompt shows two answers).
        reads: What the policy gives it: "logprobs", or "scores" of a reward head.
        anchors: Names of the references whose log-probs the loss reads.
        uses_beta: Whether the loss multiplies by the KL controller's β; if not, a `kl` section beside it is an error.
        beta_optional: Whether `kl: none` means that there is no KL penalty, where the loss uses β.
        uses_p_chosen: Whether soft labels enter the loss.
        uses_margin: Whether a row's margin enters the loss.
        uses_variance: Whether it reads the variance of the rewards, so that the oracle must know it.
        uses_values: Whether it reads a critic's values, so that the policy must have one.
        uses_old: Whether it weighs by the ratio to the policy that drew, so that several optimiser steps may be taken
            on the same rollouts. Without it a round is one optimiser step.
        min_completions: Completions of a prompt that it compares with one another, at the least.
        beta_per_side: Whether `Step.beta` may differ between chosen and rejected (B, 2).
        uses_win_rates: Whether it reads the win rates of both completions, so that a pairing must give them.
        mixes: Whether `reference_weight` may be above 0, so that the sampler must mix.
        vector_inputs: Further inputs that a conformance vector may give, by name (see `read_vector`).
        compares_rows: Whether a row's value depends on the rows beside it, so that a micro-batch is one pass.
        detaches: Whether it holds something constant on purpose that depends on the policy (a stop-gradient), so that
            its gradient is not the slope of its values. The contract checks read it.
        mean_over: What the sum of the values is divided by: the "rows" of the optimiser step, or all their completion
            "tokens", of rollouts only (then a value is a sum over its row's tokens). An instance may set it.
        reward_unit: What its implicit rewards are measured in, as people read it below a curve, such as "τ · nats per
            token". Empty: β · nats where a KL controller gives β, scores where it reads scores, else not known. An
            instance may set it.
        critic_init: Where a critic starts: "zero", a linear head on the policy's trunk, or "reward_model", a copy of
            the oracle's model. An instance may set it from an argument; read where `uses_values`.
    """

    rows: ClassVar[RowKind] = "pairs"
    reads: ClassVar[Literal["logprobs", "scores"]] = "logprobs"
    anchors: ClassVar[tuple[str, ...]] = ("ref",)
    uses_beta: ClassVar[bool] = True
    beta_optional: ClassVar[bool] = False
    uses_p_chosen: ClassVar[bool] = False
    uses_margin: ClassVar[bool] = False
    uses_variance: ClassVar[bool] = False
    uses_values: ClassVar[bool] = False
    uses_old: ClassVar[bool] = False
    min_completions: ClassVar[int] = 1
    beta_per_side: ClassVar[bool] = False
    uses_win_rates: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    vector_inputs: ClassVar[tuple[str, ...]] = ()
    compares_rows: ClassVar[bool] = False
    detaches: ClassVar[bool] = False
    mean_over: Literal["rows", "tokens"] = "rows"
    reward_unit: str = ""
    critic_init: Literal["zero", "reward_model"] = "zero"

    @abstractmethod
    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Values per row, in the dtype of the log-probs or scores."""

    def observe(self, means: Mapping[str, Tensor]) -> None:
        """Called once after each optimiser step with the means of what it reported over its rows, on all ranks.

        They are float64 scalars on the device of the step: `loss`, the implicit rewards and the metrics, by name; what
        had no value in the step is not there. The place for running means. In reinforcement learning too: there
        `judged` and `advantages`, asked once before an update, see the state from before its first step.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: numbers only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        return None

    def judged(self, batch: RolloutBatch) -> Tensor:
        """The oracle's score after what the method does to completions that did not end by themselves (S,).

        Asked before the KL controller's `reward`, which may change the scores' units.
        """
        return batch.score

    def advantages(self, batch: RolloutBatch, step: Step) -> Advantages | None:
        """What each token's log-ratio is multiplied by; called once before an update, over all of its completions.

        Args:
            batch: The round's completions; `old`, `anchors`, and with a critic `old_value`, are there, and `token_logp`
                equals `old`. No gradient.
            step: As in the update.

        Returns:
            None where the loss computes its coefficients itself.
        """
        return None

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
