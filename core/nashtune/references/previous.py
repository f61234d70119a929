"""Reference `previous`: the snapshot that the schedule's anchor phase names; in a game only."""

from __future__ import annotations

from typing import ClassVar

from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.policy import LogProbEngine, Policy
from nashtune.interfaces.reference import Reference


class PreviousReference(Reference):
    """The policy of an earlier point of the game: the last round's, an auxiliary one, or a mixture of several.

    Its log-probs are computed once per anchor phase, with the snapshot loaded into the live policy, so that no second
    model is in memory.
    """

    gives_logits: ClassVar[bool] = False
    snapshot: ClassVar[str | None] = "previous"

    def attach(self, policy: Policy) -> None:
        """Nothing: the anchor phase does the work."""

    def logprobs(self, batch: TokenBatch, engine: LogProbEngine) -> LogProbs:
        """Never called: a game hands out what its anchor phase has computed.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("the reference 'previous' is scored by the anchor phase of a schedule")
