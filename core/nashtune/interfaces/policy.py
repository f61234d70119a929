"""Policy and log-prob engine.

Legend: N = sequences, M = completion tokens, H = hidden size, V = vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import LogProbs, TokenBatch

TokenStatistics = Callable[["Tensor", "Tensor", "Tensor"], "dict[str, Tensor]"]


class LogProbEngine(ABC):
    """Turns token ids into log-probs of the completions. Every engine equals `dense` in value and gradient.

    `forward` runs the model once; what it returns (the engine's own type) is then read by `logprobs` and
    `statistics`, so that log-probs and vocabulary statistics share one pass of the backbone.
    """

    @abstractmethod
    def forward(self, model: Any, batch: TokenBatch) -> Any:
        """One pass of a causal LM over the batch: the features at the M positions that predict a completion token."""

    @abstractmethod
    def logprobs(self, features: Any, batch: TokenBatch) -> LogProbs:
        """Log-probs of the completions, with gradient where the features carry one."""

    @abstractmethod
    def hidden(self, features: Any) -> Tensor:
        """The backbone's last hidden states at the predicting positions (M, H), with gradient where they carry one."""

    @abstractmethod
    def last_hidden(self, features: Any) -> Tensor:
        """The backbone's last hidden state at the last token of each sequence (N, H)."""

    @abstractmethod
    def statistics(self, policy: Any, ref: Any, batch: TokenBatch, fn: TokenStatistics) -> dict[str, Tensor]:
        """Sums over each completion (N,) of `fn(policy_logits_MV, ref_logits_MV, targets_M)`, in float32, no gradient.

        `fn` must treat every token on its own: the engine calls it on as many tokens at a time as fit.
        """


class Policy(ABC):
    """What is trained."""

    @abstractmethod
    def forward(self, batch: TokenBatch, engine: LogProbEngine) -> Any:
        """Features of the batch under the current weights."""

    def logprobs(self, batch: TokenBatch, engine: LogProbEngine) -> LogProbs:
        """Log-probs of the batch's completions under the current weights."""
        return engine.logprobs(self.forward(batch, engine), batch)
