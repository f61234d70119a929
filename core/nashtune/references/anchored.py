"""What a game's anchor phase leaves behind: log-prob sums of the round's rows, as a reference.

An anchor phase loads a snapshot into the live policy, scores every row with it once (`score_rows`), mixes several
snapshots where the schedule says so (`mix`) and keeps the result in the journal (`to_tensors`). An update phase then
reads the sums (`AnchoredReference`), so that no second model is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.policy import LogProbEngine, Policy
from nashtune.interfaces.reference import Reference
from nashtune.logprobs.head import accumulation_dtype
from nashtune.models.policy import HFPolicy
from nashtune.references.live import hf_policy
from nashtune.references.scoring import look_up, score_new, windows
from nashtune.references.store import Sums, from_tensors, no_sums, to_tensors

__all__ = ["AnchoredReference", "Sums", "from_tensors", "mix", "score_rows", "to_tensors"]


class AnchoredReference(Reference):
    """Log-probs that an anchor phase has computed, found by the token ids and completion mask of a sequence.

    Args:
        of: What is scored: "start", or "previous" where the schedule's anchor phases say.
    """

    gives_logits: ClassVar[bool] = False

    def __init__(self, of: str = "previous") -> None:
        self.of = of
        self._sums = no_sums()
        self._dtype = torch.float32

    def attach(self, policy: Policy) -> None:
        """Gives its sums the dtype that the policy's have."""
        self._dtype = accumulation_dtype(next(hf_policy(policy, "anchored").parameters()).dtype)

    def set(self, sums: Sums) -> None:
        """Replaces what it knows, when another anchor phase has run.

        Args:
            sums: As `score_rows` gives them.
        """
        self._sums = sums

    def recall(self, batch: TokenBatch) -> Tensor:
        """The kept sums of a batch on the host (N,).

        Raises:
            InputError: the anchor phase has not seen a sequence of the batch.
        """
        return look_up(
            [self._sums],
            batch,
            self._dtype,
            "anchors: no log-prob for row {row}: it is not among the rows that this round's anchor phase scored. The "
            "data or the tokenizer changed since; start a new run with another --run_dir",
        )

    def logprobs(self, batch: TokenBatch, engine: LogProbEngine) -> LogProbs:
        """As `recall`, where the batch is; `token_logp` is empty, because only sums are kept."""
        sums = self.recall(batch).to(batch.input_ids.device)
        return LogProbs(sums=sums, lengths=batch.completion_mask.sum(1), token_logp=sums.new_empty(0))


def score_rows(policy: HFPolicy, batches: Iterable[TokenBatch], engine: LogProbEngine) -> Sums:
    """Log-prob sums of every sequence under the policy's current weights, without gradient and without dropout.

    Args:
        policy: Loaded; with an adapter, the adapter is on.
        batches: Every row; batches of any size: sequences are sorted and packed anew. One that comes again is not
            scored again.
        engine: The run's engine.
    """
    sums = no_sums(accumulation_dtype(next(policy.parameters()).dtype))
    for window in windows(batches):
        sums = sums.merged(score_new(sums, window, policy.loaded(), engine, policy.device))
    return sums


def mix(parts: Sequence[tuple[float, Sums]]) -> Sums:
    """Weighted sums of log-probs, in float64: a geometric mixture of policies, up to its constant.

    The constant depends on the prompt alone; a loss that reads differences within a pair does not see it.

    Args:
        parts: Weight and sums of each policy; the weights sum to 1.

    Raises:
        ValueError: the policies were not scored on the same sequences.
    """
    _, first = parts[0]
    if any(not np.array_equal(sums.names, first.names) for _, sums in parts):
        raise ValueError("the parts of a mixture were scored on different sequences")
    mixed = np.zeros(len(first))
    for weight, sums in parts:
        mixed += weight * sums.sums.astype(np.float64)
    return Sums(names=first.names, sums=mixed, lengths=first.lengths)
