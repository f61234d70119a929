"""Log-probs of answers under the model that is to be trained."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from nashtune.errors import InputError
from nashtune.models.mode import frozen_mode
from nashtune.pipeline.journalled import JournalledModel, Measured, Sequences

Scored = tuple[float, int]
"""Mean negative log-prob in nats per token, and tokens."""


class Scorer(JournalledModel):
    """Says of answers how likely the model finds them."""

    def score(self, name: str, sequences: Sequences, where: Callable[[int], str]) -> list[Scored]:
        """Of every answer behind its prompt, at temperature 1.

        Args:
            name: Of the journal's files.
            sequences: Tokens of prompt and answer, EOS included.
            where: What to call sequence i in a message.

        Raises:
            InputError: a log-prob is not finite.
        """
        scored: list[Scored] = []
        for start, chunk, kept in self.measured(name, sequences, self._sums):
            for i, (total, (_, answer)) in enumerate(zip(kept["sums"], chunk, strict=True), start=start):
                if not math.isfinite(total):
                    raise InputError(
                        f"{where(i)}: the model's log-prob is {total}; its weights or its precision are broken "
                        "(policy.precision: fp32)"
                    )
                scored.append((-total / len(answer), len(answer)))
        return scored

    def _sums(self, sequences: Sequences) -> Measured:
        policy = self.loaded()
        sums = torch.zeros(len(sequences), dtype=torch.float64)
        with frozen_mode(policy.loaded()):
            for places, batch in self.batches(sequences):
                sums[places] = policy.logprobs(batch.to(policy.device), self.engine).sums.double().cpu()
        return {"sums": sums}
