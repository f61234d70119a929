"""Answers of several policies to the same prompts, side by side, as plain data for the page's script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_ENTRIES = 400
"""Prompts, times seeds, whose answers are on a page."""


TICKS = 10_000
"""Verdicts stand in a page's data as whole numbers of so many in one."""
VERDICT_BYTES = 12
"""Of the two verdicts of a pair, with their commas."""
Verdicts = tuple[float | None, float | None]
EQUAL: Verdicts = (-1.0, -1.0)


@dataclass(frozen=True)
class Said:
    """One answer.

    Args:
        text: What was said.
        tokens: Its length; None where nobody counted.
        detail: What else is known of it.
    """

    text: str
    tokens: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Entry:
    """One prompt, or one prompt and seed.

    Args:
        prompt: Its text.
        answers: One for each policy; None where there is none.
        seed: Of the answers; None where there is but one.
        verdicts: Of each two policies, in the order of `itertools.combinations`: P(first better) with its answer shown
            first, and shown second; None where there is no verdict; `EQUAL` where the answers are the same text.
    """

    prompt: str
    answers: Sequence[Said | None]
    seed: int | None = None
    verdicts: Sequence[Verdicts] = ()


@dataclass(frozen=True)
class Answers:
    """Everything that the viewer shows.

    Args:
        policies: Names, in order.
        entries: One for each prompt, or each prompt and seed.
        notes: What a reader must know.
    """

    policies: Sequence[str]
    entries: Sequence[Entry]
    notes: Sequence[str] = field(default=())

    def as_data(self) -> dict[str, Any]:
        """For the page's script; each text once."""
        texts: dict[str, int] = {}

        def said(one: Said | None) -> dict[str, Any] | None:
            if one is None:
                return None
            return {"t": texts.setdefault(one.text, len(texts)), "n": one.tokens, "d": one.detail}

        entries = [
            {
                "q": texts.setdefault(entry.prompt, len(texts)),
                "s": entry.seed,
                "a": [said(one) for one in entry.answers],
                "j": [_ticks(p) for pair in entry.verdicts for p in pair],
            }
            for entry in self.entries
        ]
        seeds = sorted({entry.seed for entry in self.entries if entry.seed is not None})
        return {
            "policies": list(self.policies),
            "entries": entries,
            "texts": list(texts),
            "seeds": seeds,
        }


def _ticks(p: float | None) -> int | None:
    return None if p is None else round(p * TICKS) if p >= 0 else -1
