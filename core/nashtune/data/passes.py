"""What happens to a batch on the host, before it moves to the device of the policy.

It is split into passes that fit into memory, its tokens are counted, and log-probs that are known already are looked
up: nothing of that is asked of the device afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from nashtune.data.pass_sizes import ACCELERATOR_TOKENS, CPU_TOKENS, cpu_tokens
from nashtune.data.split import rows_of_passes, select
from nashtune.interfaces import LogProbEngine, Reference, TokenBatch


def pass_tokens(asked: int | None, device: torch.device, model: Any = None) -> int:
    """Most positions of a pass.

    Args:
        asked: `data.batch_tokens`.
        device: Of the policy.
        model: A transformers model, or a peft model around one: on a CPU, its sizes decide where nothing is asked. None
            stands for a large one.
    """
    if asked:
        return asked
    return ACCELERATOR_TOKENS if device.type != "cpu" else CPU_TOKENS if model is None else _cpu_tokens(model.config)


def _cpu_tokens(config: Any) -> int:
    text = config.get_text_config()
    hidden, layers = text.hidden_size, text.num_hidden_layers
    intermediate = getattr(text, "intermediate_size", None) or 4 * hidden  # GPT-2 has another name for it
    return cpu_tokens(layers=layers, hidden=hidden, intermediate=intermediate)


def split(batch: TokenBatch, engine: LogProbEngine, budget: int | None) -> list[TokenBatch]:
    """The passes of a batch, on the host."""
    passes = [list(range(len(batch)))] if budget is None else rows_of_passes(batch, engine, budget)
    return [batch] if len(passes) == 1 else [select(batch, rows) for rows in passes]


def counted(batch: TokenBatch, engine: LogProbEngine, references: Mapping[str, Reference]) -> TokenBatch:
    """A pass with its layout, sizes of its lists or rollouts, and the log-prob sums that references remember."""
    known = dict(batch.known)
    for name, reference in references.items():
        if f"ref:{name}" not in batch.per_token and (sums := reference.recall(batch)) is not None:
            known[name] = sums
    layout = engine.plan(batch)
    cut = layout.lengths if batch.kind == "rollouts" else batch.sizes
    return replace(batch, known=known, counts=None if cut is None else tuple(cut.tolist()), layout=layout)
