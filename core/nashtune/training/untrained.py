"""A run without an optimiser step: its weights are the start model's, and nobody may take them for a result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def untrained(report: Mapping[str, Any]) -> str | None:
    """Why nothing was trained; None where something was.

    Args:
        report: Of the run, with its rounds where it has any.
    """
    if report["steps"]:
        return None
    rounds = report.get("rounds", ())
    if not rounds or any(one["pairs"] for one in rounds):
        return "training ended before the first optimiser step"
    dropped: Counter[str] = Counter()
    for one in rounds:
        dropped.update(one["dropped"])
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    return "no round gave anything to train on" + (f" (dropped: {reasons})" if reasons else "")


def nothing_trained(why: str, folder: Path) -> str:
    """What the run ends with.

    Args:
        why: What `untrained` gave.
        folder: Of the run.
    """
    journal = folder / "journal"
    judged = f" What was drawn and judged is in {journal}." if journal.is_dir() else ""
    return (
        f"nothing was trained: {why}. The weights are the start model's, so no model is exported.{judged} What the run "
        f"came to is in {folder / 'report.json'}"
    )
