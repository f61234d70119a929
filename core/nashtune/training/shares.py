"""What each attempt of a run has added to its result, as checkpoints keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nashtune.errors import InputError
from nashtune.training.checkpoint_parts import is_number, shown

SAVED = "nashtune_attempts"
"""Key of a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What an attempt has added to the result, over all ranks.

    Args:
        attempt: Its number in this run folder; None for one of the run that this one was begun from.
        steps: Optimiser steps.
        tokens: As `Throughput.real_tokens`.
        positions: As there.
        padding: As there.
        seconds: Inside training batches, of the rank that needed the most.
        peak: GiB, of the rank with the most.
    """

    attempt: int | None
    steps: int
    tokens: int
    positions: int
    padding: int
    seconds: float
    peak: float


def shares(saved: Any) -> list[Share]:
    """What a checkpoint says of earlier attempts.

    Args:
        saved: Its part `SAVED`.

    Raises:
        InputError: it was altered.
    """
    names = {field.name for field in fields(Share)}
    for one in saved if isinstance(saved, list) else [saved]:
        plain = isinstance(saved, list) and isinstance(one, Mapping) and one.keys() == names
        if not plain or not all(is_number(n) and n >= 0 for name, n in one.items() if (name, n) != ("attempt", None)):
            raise InputError(
                f"--ckpt_path: the checkpoint's {SAVED} has {shown(one)}, which is no attempt's share: it was altered, "
                "restore it from a copy"
            )
    return [Share(**one) for one in saved]
