"""What each round of a game or of reinforcement learning came to, from its journal and the run's step log."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
import torch

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
from nashtune.rl.estimators import kl_terms
from nashtune.rounds.measure import MEASURED
from nashtune.rounds.table import Table


def summaries(
    table: Table, metrics: Metrics, steps_of_round: Callable[[int, int], int], done: int
) -> list[dict[str, Any]]:
    """One mapping per round that was begun, for the report and `rounds_table`.

    Of every round: `round`, `prompts`, `completions`, `tokens` (of all completions), `truncated` (completions that
    ended at the token limit), `score` (mean score of the completions; None with a preference oracle), `pairs` (rows
    that it trains on), `dropped` (pairs that were not made, by reason), `steps`, and `loss` and `accuracy` (means over
    its logged steps; None where there are none). Where completions are judged in pairs: `judgements`. Where they are
    rewarded one by one: `rewards`, `score_std` over the completions, `variance` (mean, where the oracle knows it),
    `kl_k1` and `kl_k3` to `ref` before the update (nats per completion), and `beta` (mean, where it was logged).

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
    own = [one for one in scored if one.role == "policy"]
    scores = [one.mean for one in own]
    unanswered = sum(math.isnan(one.p) for one in judged)
    pairs, dropped = read_pairs(journal, round) if PAIRS in names else ([], {"unparsed": unanswered})
    loss, accuracy = (_logged(metrics, name, round) for name in ("train/loss", "train/accuracy"))
    found = {
        "round": round,
        "prompts": len({one.prompt for one in drawn}),
        "completions": len(drawn),
        "tokens": sum(len(one.token_ids) for one in drawn),
        "truncated": sum(one.finish == "length" for one in drawn),
        "score": float(np.mean(scores)) if scores else None,
        "pairs": len(pairs) if table.pairing is not None else len(judged) - unanswered,
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "loss": fmean(loss) if loss else None,
        "accuracy": fmean(accuracy) if accuracy else None,
    }
    if not table.judged_by_scores:
        return {**found, "judgements": len(judged)}
    variances = [one.variance for one in own if one.variance is not None]
    betas = _logged(metrics, "rollout/beta", round)
    return {
        **found,
        **_kl(table, round, names, len(own)),
        "pairs": len(own),
        "rewards": len(own),
        "score_std": float(np.std(scores)) if scores else None,
        "variance": fmean(variances) if variances else None,
        "beta": fmean(betas) if betas else None,
    }


def _kl(table: Table, round: int, names: set[str], rollouts: int) -> dict[str, float]:
    """KL(policy || ref) on the rollouts of a round, as its first update found them."""
    measured = sorted(name for name in names if name.startswith(MEASURED))
    first = [name for name in measured if name.rpartition("-")[0] == measured[0].rpartition("-")[0]]
    parts = [table.journal.read_tensors(round, name) for name in first]
    if not parts or "ref:ref" not in parts[0]:
        return {}
    old_M, ref_M = (torch.cat([part[name] for part in parts]).double() for name in ("old", "ref:ref"))
    return {f"kl_{kind}": float(kl_terms(old_M, ref_M, kind).sum()) / rollouts for kind in ("k1", "k3")}


def _logged(metrics: Metrics, name: str, round: int) -> list[float]:
    """A metric's values at the steps of a round."""
    steps = {step for step, value in metrics.series.get("train/round", []) if int(value) == round}
    return [value for step, value in metrics.series.get(name, []) if step in steps]
