"""What each round of a game came to, from its journal and the run's step log."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import Any

import numpy as np

from nashtune.evaluation.report import Metrics
from nashtune.journal.records import (
    PAIRS,
    judgements_name,
    read_completions,
    read_judgements,
    read_pairs,
    read_scores,
    scores_name,
)
from nashtune.rounds.table import Table


def summaries(table: Table, metrics: Metrics) -> list[dict[str, Any]]:
    """One mapping per round that was begun, for the report and `rounds_table`."""
    return [_summary(table, metrics, round) for round in table.journal.rounds()]


def _summary(table: Table, metrics: Metrics, round: int) -> dict[str, Any]:
    journal = table.journal
    names = set(journal.names(round))
    parts = range(sum(name.startswith("completions-policy-") for name in names))
    drawn = [one for part in parts for one in read_completions(journal, round, "policy", part)[0]]
    judged = sum(len(read_judgements(journal, round, part)) for part in parts if judgements_name(part) in names)
    scores = [one.mean for part in parts if scores_name(part) in names for one in read_scores(journal, round, part)]
    pairs, dropped = read_pairs(journal, round) if PAIRS in names else ([], {})
    loss, accuracy = (_logged(metrics, name, round) for name in ("train/loss", "train/accuracy"))
    return {
        "round": round,
        "prompts": len({one.prompt for one in drawn}),
        "completions": len(drawn),
        "tokens": sum(len(one.token_ids) for one in drawn),
        "truncated": sum(one.finish == "length" for one in drawn),
        "judgements": judged,
        "score": float(np.mean(scores)) if scores else None,
        "pairs": len(pairs) if PAIRS in names else judged,
        "dropped": dict(Counter(dropped)),
        "steps": len(loss),
        "loss": fmean(loss) if loss else None,
        "accuracy": fmean(accuracy) if accuracy else None,
    }


def _logged(metrics: Metrics, name: str, round: int) -> list[float]:
    """A metric's values at the steps of a round."""
    steps = {step for step, value in metrics.series.get("train/round", []) if int(value) == round}
    return [value for step, value in metrics.series.get(name, []) if step in steps]
