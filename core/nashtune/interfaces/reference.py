"""Reference: any frozen distribution whose log-probs enter the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import LogProbs, TokenBatch
    from nashtune.interfaces.policy import LogProbEngine, Policy


class Batches(Protocol):
    """Batches that are made as they are asked for, in any order and as often as needed."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> TokenBatch:
        """One of them."""

    def __iter__(self) -> Iterator[TokenBatch]:
        """All of them, in their order."""


class Reference(ABC):
    """A frozen distribution. It lives outside the trained module: no gradient, not in the checkpoint.

    Attributes:
        gives_logits: Whether full-vocabulary logits can be had (false for cached log-probs).
        snapshot: Which snapshot it is: "start", or "previous" where the schedule says; None for a distribution of its
            own. In a game, anchor phases score the round's rows with that snapshot loaded into the live policy.
    """

    gives_logits: ClassVar[bool] = True
    snapshot: ClassVar[str | None] = None

    @abstractmethod
    def attach(self, policy: Policy) -> None:
        """Called once when the policy is loaded and still at its starting weights.

        Raises:
            InputError: the reference cannot be built from this policy (for example an adapter-off reference on top of
                an SFT adapter, which would be the base model and not the SFT model).
        """

    def prepare(self, batches: Batches, engine: LogProbEngine, key: str) -> object:
        """Called before the first step, once per split, with every row; only a reference that keeps log-probs cares.

        Args:
            batches: Every row of the split, made as they are read.
            engine: The run's engine.
            key: sha256 of the split's token ids and labels.
        """
        return None

    def recall(self, batch: TokenBatch) -> Tensor | None:
        """Log-prob sums of a batch that is still on the host (N,), where they were computed before; else None.

        Raises:
            InputError: they should have been, and a sequence is not among them.
        """
        return None

    def forward(self, batch: TokenBatch, engine: LogProbEngine) -> Any:
        """Features of the batch, without gradient; only where `gives_logits`."""
        raise TypeError(f"{type(self).__name__} gives no logits")

    @abstractmethod
    def logprobs(self, batch: TokenBatch, engine: LogProbEngine) -> LogProbs:
        """Log-probs of the batch's completions, without gradient."""
