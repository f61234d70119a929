"""What a game's anchor phase leaves behind: log-prob sums of the round's rows, as a reference.

An anchor phase loads a snapshot into the live policy, scores every row with it once (`score_rows`), mixes several
snapshots where the schedule says so (`mix`) and keeps the result in the journal (`to_tensors`). An update phase then
reads the sums (`AnchoredReference`), so that no second model is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch

from nashtune.interfaces.batch import LogProbs, TokenBatch
from nashtune.interfaces.policy import LogProbEngine, Policy
from nashtune.interfaces.reference import Reference
from nashtune.logprobs.head import accumulation_dtype
from nashtune.models.policy import HFPolicy
from nashtune.references.live import hf_policy
from nashtune.references.scoring import look_up, score_new
from nashtune.references.store import Entry, from_tensors, to_tensors

__all__ = ["AnchoredReference", "Entry", "from_tensors", "mix", "score_rows", "to_tensors"]


class AnchoredReference(Reference):
    """Log-probs that an anchor phase has computed, found by the token ids and completion mask of a sequence.

    Args:
        of: What is scored: "start", or "previous" where the schedule's anchor phases say.
    """

    gives_logits: ClassVar[bool] = False

    def __init__(self, of: str = "previous") -> None:
        self.of = of
        self._entries: Mapping[bytes, Entry] = {}
        self._dtype = torch.float32

    def attach(self, policy: Policy) -> None:
        """Gives its sums the dtype that the policy's have."""
        self._dtype = accumulation_dtype(next(hf_policy(policy, "anchored").parameters()).dtype)

    def set(self, entries: Mapping[bytes, Entry]) -> None:
        """Replaces what it knows, when another anchor phase has run.

        Args:
            entries: Sum and length by the digest of a sequence, as `score_rows` gives them.
        """
        self._entries = entries

    def logprobs(self, batch: TokenBatch, engine: LogProbEngine) -> LogProbs:
        """The kept sums; `token_logp` is empty, because only sums are kept.

        Raises:
            InputError: the anchor phase has not seen a sequence of the batch.
        """
        return look_up(
            self._entries,
            batch,
            self._dtype,
            "anchors: no log-prob for row {row}: it is not among the rows that this round's anchor phase scored. The "
            "data or the tokenizer changed since; start a new run with another --run_dir",
        )


def score_rows(policy: HFPolicy, batches: Iterable[TokenBatch], engine: LogProbEngine) -> dict[bytes, Entry]:
    """Log-prob sums of every sequence under the policy's current weights, without gradient and without dropout.

    Args:
        policy: Loaded; with an adapter, the adapter is on.
        batches: Every row; batches of any size. A sequence that comes again is not scored again.
        engine: The run's engine.

    Returns:
        Sum in nats and number of completion tokens, by the digest of a sequence.
    """
    entries: dict[bytes, Entry] = {}
    for batch in batches:
        score_new(entries, policy.loaded(), batch, engine, policy.device)
    return entries


def mix(parts: Sequence[tuple[float, Mapping[bytes, Entry]]]) -> dict[bytes, Entry]:
    """Weighted sums of log-probs, in float64: a geometric mixture of policies, up to its constant.

    The constant depends on the prompt alone; a loss that reads differences within a pair does not see it.

    Args:
        parts: Weight and entries of each policy; the weights sum to 1.

    Raises:
        ValueError: the policies were not scored on the same sequences.
    """
    _, first = parts[0]
    if any(entries.keys() != first.keys() for _, entries in parts):
        raise ValueError("the parts of a mixture were scored on different sequences")
    return {
        name: (sum(weight * entries[name][0] for weight, entries in parts), length)
        for name, (_, length) in first.items()
    }
