"""A few sequences of a cache file are scored again before its numbers are believed.

The file's name says what its numbers depend on, as far as it is known. What is not known (a changed kernel, a file that
was edited by hand) shows here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nashtune.interfaces.batch import TokenBatch
from nashtune.interfaces.policy import LogProbEngine
from nashtune.references.scoring import Window, score_new, windows
from nashtune.references.store import Sums, no_sums

SAMPLE = 8
"""Sequences that are scored again."""
PER_TOKEN = {"float64": 1e-9, "float32": 1e-4, "coarse": 0.02}
"""Nats for each completion token by which two passes of the same weights may differ, because other sequences were in
them."""
FEWEST_TOKENS = 8
"""Shorter completions are allowed as much as one of this length: rounding does not average out over a few tokens."""


def precision(dtype: torch.dtype, device: torch.device) -> str:
    """How exact a pass is: a name in `PER_TOKEN`. `coarse` is bfloat16, float16, or float32 by lower products."""
    lower = torch.is_autocast_enabled(device.type) or torch.get_float32_matmul_precision() != "highest"
    if dtype == torch.float64:
        return "float64"
    return "float32" if dtype == torch.float32 and not lower else "coarse"


def sample(batches: Iterable[TokenBatch]) -> Window:
    """The first few different sequences."""
    rows = next(windows(_first(batches)), {})
    return dict(list(rows.items())[:SAMPLE])


def difference(
    sums: Sums, rows: Window, model: Any, engine: LogProbEngine, device: torch.device, allowed: float
) -> str | None:
    """What is wrong with kept sums, in words; None where the model gives them again.

    Args:
        sums: What was kept.
        rows: Sequences to score again; those that `sums` does not hold are left out.
        model: At the weights that the sums are of.
        engine: The run's engine.
        device: Where the model is.
        allowed: Nats for each completion token.
    """
    there, _ = sums.find(list(rows))
    rows = {name: row for (name, row), here in zip(rows.items(), there, strict=True) if here}
    again = score_new(no_sums(), rows, model, engine, device)
    _, place = sums.find(list(again))
    gaps = np.abs(sums.sums[place].astype(np.float64) - again.sums)
    limits = allowed * np.maximum(again.lengths, FEWEST_TOKENS)
    wrong = np.flatnonzero(~(gaps <= limits))  # NaN is wrong too
    if not len(wrong):
        return None
    worst = int(wrong[0])
    return (
        f"{len(wrong)} of {len(gaps)} log-probs that were computed again differ: kept "
        f"{sums.sums[place[worst]]:.4f}, now {again.sums[worst]:.4f}, over {again.lengths[worst]} tokens "
        f"(allowed difference {limits[worst]:.4f})"
    )


def advice(file: Path) -> str:
    """What to do about a difference."""
    return (
        f"delete {file} and run again, and the log-probs are computed anew. If it happens again, two passes of one "
        "model differ by more than rounding on this machine: use the reference `base`"
    )


def _first(batches: Iterable[TokenBatch]) -> Iterable[TokenBatch]:
    seen = 0
    for batch in batches:
        yield batch
        seen += len(batch.input_ids)
        if seen >= SAMPLE:
            return
