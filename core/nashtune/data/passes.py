"""What happens to a batch on the host, before it moves to the device of the policy.

It is split into passes that fit into memory, its tokens are counted, and log-probs that are known already are looked
up: nothing of that is asked of the device afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from nashtune.data.pass_sizes import ACCELERATOR_TOKENS, CPU_TOKENS
from nashtune.data.split import rows_of_passes, select
from nashtune.interfaces import LogProbEngine, Reference, TokenBatch


def pass_tokens(asked: int | None, device: torch.device) -> int:
    """Most positions of a pass.

    Args:
        asked: `data.batch_tokens`.
        device: Of the policy.
    """
    return asked or (CPU_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS)


def split(batch: TokenBatch, engine: LogProbEngine, budget: int | None) -> list[TokenBatch]:
    """The passes of a batch, on the host."""
    passes = [list(range(len(batch)))] if budget is None else rows_of_passes(batch, engine, budget)
    return [batch] if len(passes) == 1 else [select(batch, rows) for rows in passes]


def counted(batch: TokenBatch, engine: LogProbEngine, references: Mapping[str, Reference]) -> TokenBatch:
    """A pass with its layout and with the log-prob sums that references remember."""
    known = dict(batch.known)
    for name, reference in references.items():
        if f"ref:{name}" not in batch.per_token and (sums := reference.recall(batch)) is not None:
            known[name] = sums
    return replace(batch, known=known, layout=engine.plan(batch))
