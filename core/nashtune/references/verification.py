"""A few sequences of a cache file are scored again before its numbers are believed.

The file's name says what its numbers depend on, as far as it is known. What is not known (a changed kernel, a file that
was edited by hand) shows here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nashtune import cpu
from nashtune.interfaces.policy import LogProbEngine
from nashtune.interfaces.reference import Batches
from nashtune.references.scoring import Window, score_new
from nashtune.references.store import Sums, digest, no_sums, rows_of

SAMPLE = 8
"""Sequences that are scored again."""
ALLOWED = {"float64": 1e-8, "float32": 3e-4, "coarse": 0.25}
"""Nats by which two passes of the same weights may differ over one completion token, because other sequences were in
them. Rounding is as often up as down, so over n tokens it is sqrt(n) times as much.

Measured with SmolLM2-135M, 16 answers of 11 to 489 tokens, engine `tiled`, other batch-mates: at most 0.06 in bfloat16
and 4e-6 in float32. Between engines it is 0.12 and 4e-5. Noise of 2% on the weights moves every answer by 0.3 to 1."""
GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly over [0, 1), however many there are."""
FEWEST_TOKENS = 8
"""Shorter completions are allowed as much as one of this length: rounding does not average out over a few tokens."""


def precision(dtype: torch.dtype, device: torch.device) -> str:
    """How exact a pass is: a name in `ALLOWED`. `coarse` is bfloat16, float16, or float32 by lower products."""
    allowed = torch.get_float32_matmul_precision() != "highest"
    lower = torch.is_autocast_enabled(device.type) or (allowed and not (device.type == "cpu" and cpu.is_exact()))
    if dtype == torch.float64:
        return "float64"
    return "float32" if dtype == torch.float32 and not lower else "coarse"


def sample(batches: Batches, sums: Sums) -> Window:
    """A few different sequences that sums are kept of, spread evenly over the batches and within them.

    Only as many batches are made as are needed: `SAMPLE`, where every sequence is kept.

    Args:
        batches: What is looked up.
        sums: What is kept.
    """
    each = -(-SAMPLE // min(SAMPLE, len(batches)))
    rows: Window = {}
    for visit, number in enumerate(_spread(len(batches))):
        named = {digest(row): row for row in rows_of(batches[number])}
        there, _ = sums.find(list(named))
        kept = [item for item, here in zip(named.items(), there, strict=True) if here]
        if visit >= SAMPLE:  # only parts are kept: what is found must do
            each = min(SAMPLE - len(rows), len(kept))
        for i in range(each if kept else 0):  # a batch of pairs has the chosen answers in front, so the place changes
            name, row = kept[int((visit * GOLDEN + i / each) % 1 * len(kept))]
            rows[name] = row
            if len(rows) == SAMPLE:
                return rows
    return rows


def difference(
    sums: Sums, rows: Window, model: Any, engine: LogProbEngine, device: torch.device, allowed: float
) -> str | None:
    """What is wrong with kept sums, in words; None where the model gives them again.

    Args:
        sums: What was kept.
        rows: Sequences of `sums`, to score again.
        model: At the weights that the sums are of.
        engine: The run's engine.
        device: Where the model is.
        allowed: Nats over one completion token, from `ALLOWED`.
    """
    again = score_new(no_sums(), rows, model, engine, device)
    _, place = sums.find(list(again))
    gaps = np.abs(sums.sums[place].astype(np.float64) - again.sums)
    limits = allowed * np.sqrt(np.maximum(again.lengths, FEWEST_TOKENS))
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


def _spread(count: int) -> Iterator[int]:
    """The numbers below count, in rounds that each go evenly over all of them."""
    step = -(-count // SAMPLE)
    return chain.from_iterable(range(start, count, step) for start in range(step))
