"""Policy and log-prob engine.

Legend: N = sequences, M = completion tokens, H = hidden size, V = vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import LogProbs, TokenBatch
    from nashtune.interfaces.layout import Layout

TokenStatistics = Callable[["Tensor", "Tensor", "Tensor"], "dict[str, Tensor]"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a backbone made of a batch, with gradient where its weights have one.

    Args:
        hidden: Last hidden states at the positions that predict a completion token (M, H).
        last: Last hidden state at the last token of each sequence (N, H).
    """

    hidden: Tensor
    last: Tensor


class LogProbEngine(ABC):
    """Turns token ids into log-probs of the completions. Every engine equals `dense` in value and gradient.

    `forward` runs the model once; what it returns (the engine's own type) is then read by `logprobs` and `compared`, so
    that log-probs and vocabulary statistics share one pass of the backbone.

    Attributes:
        pads: Whether every sequence of a batch costs as much as the longest.
    """

    pads: bool = True

    def check(self, model: Any) -> None:
        """See whether the engine can run a model: the policy's, or a reference of its own beside it.

        Raises:
            InputError: it cannot.
        """
        return None

    def attach(self, model: Any) -> None:
        """Called once when the policy's model is loaded, before anything is planned.

        Raises:
            InputError: as `check`.
        """
        self.check(model)

    @abstractmethod
    def plan(self, batch: TokenBatch) -> Layout:
        """Where the batch's tokens are. Called on the host; what follows then waits for no device.

        Raises:
            ValueError: a completion covers padding, or a sequence has no token.
        """

    @abstractmethod
    def encode(self, trunk: Any, batch: TokenBatch) -> Encoded:
        """One pass of a backbone that ends in hidden states."""

    @abstractmethod
    def forward(self, model: Any, batch: TokenBatch) -> Any:
        """One pass of a causal LM over the batch: the features at the M positions that predict a completion token.

        Raises:
            ValueError: a completion starts at position 0, where nothing predicts its first token.
        """

    @abstractmethod
    def logprobs(self, features: Any, batch: TokenBatch) -> LogProbs:
        """Log-probs of the completions, with gradient where the features carry one."""

    @abstractmethod
    def states(self, features: Any) -> Encoded:
        """The backbone's last hidden states, as they entered the LM head."""

    @abstractmethod
    def compared(
        self, policy: Any, ref: Any, batch: TokenBatch, fn: TokenStatistics
    ) -> tuple[LogProbs, LogProbs, dict[str, Tensor]]:
        """Log-probs under the policy and under a reference, and statistics of both vocabularies, from one pass over it.

        Args:
            policy: Features of the policy; its log-probs carry a gradient where they do.
            ref: Features of the reference.
            batch: What both were computed on.
            fn: Called as `fn(policy_logits_MV, ref_logits_MV, targets_M)`, in float32 and without gradient, on as many
                tokens at a time as fit: it must treat every token on its own.

        Returns:
            Log-probs of the policy, log-probs of the reference, and sums over each completion (N,) of what `fn`
            returns.
        """


class Policy(ABC):
    """What is trained."""

    @abstractmethod
    def forward(self, batch: TokenBatch, engine: LogProbEngine) -> Any:
        """Features of the batch under the current weights."""

    def logprobs(self, batch: TokenBatch, engine: LogProbEngine) -> LogProbs:
        """Log-probs of the batch's completions under the current weights."""
        return engine.logprobs(self.forward(batch, engine), batch)
