"""What each round of a game came to, from its journal and the run's step log."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def summaries(
    table: Table, metrics: Metrics, steps_of_round: Callable[[int, int], int], done: int
) -> list[dict[str, Any]]:
    """One mapping per round that was begun, for the report and `rounds_table`.

    Args:
        table: The game.
        metrics: The step log, which may hold every n-th step only.
        steps_of_round: Optimiser steps of a round with so many rows.
        done: Optimiser steps of the run.
    """
    found = []
    for round in table.journal.rounds():
        summary = _summary(table, metrics, round)
        steps = min(done, steps_of_round(round, summary["pairs"]))
        done -= steps
        found.append({**summary, "steps": steps})
    return found


def _summary(table: Table, metrics: Metrics, round: int) -> dict[str, Any]:
    journal = table.journal
    names = set(journal.names(round))
    parts = range(sum(name.startswith("completions-policy-") for name in names))
    drawn = [one for part in parts for one in read_completions(journal, round, "policy", part)[0]]
    judged = [one for part in parts if judgements_name(part) in names for one in read_judgements(journal, round, part)]
    scored = [one for part in parts if scores_name(part) in names for one in read_scores(journal, round, part)]
    scores = [one.mean for one in scored if one.role == "policy"]
    unanswered = sum(math.isnan(one.p) for one in judged)
    pairs, dropped = read_pairs(journal, round) if PAIRS in names else ([], {"unparsed": unanswered})
    loss, accuracy = (_logged(metrics, name, round) for name in ("train/loss", "train/accuracy"))
    return {
        "round": round,
        "prompts": len({one.prompt for one in drawn}),
        "completions": len(drawn),
        "tokens": sum(len(one.token_ids) for one in drawn),
        "truncated": sum(one.finish == "length" for one in drawn),
        "judgements": len(judged),
        "score": float(np.mean(scores)) if scores else None,
        "pairs": len(pairs) if table.pairing is not None else len(judged) - unanswered,
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "loss": fmean(loss) if loss else None,
        "accuracy": fmean(accuracy) if accuracy else None,
    }


def _logged(metrics: Metrics, name: str, round: int) -> list[float]:
    """A metric's values at the steps of a round."""
    steps = {step for step, value in metrics.series.get("train/round", []) if int(value) == round}
    return [value for step, value in metrics.series.get(name, []) if step in steps]
