"""What a perplexity filter has found, in numbers: for `report.json`."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nashtune.pipeline.perplexity_rows import PAIR, Candidates, Read
from nashtune.pipeline.perplexity_rules import Limit, bucket_name, perplexity, quantile

BINS = 40
POSITIVE = ("chosen", "desirable")
NEGATIVE = ("rejected", "undesirable")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A row and what became of it.

    Args:
        row: The row.
        scored: (nll, tokens) of its answers.
        passes: Which of them the rule keeps.
        reason: Why the row is left out; "" when it is kept.
    """

    row: Candidates
    scored: Sequence[tuple[float, int]]
    passes: Sequence[bool]
    reason: str

    @property
    def kept(self) -> bool:
        """Whether anything of it is kept."""
        return not self.reason


def make_report(
    read: Read, verdicts: Sequence[Verdict], found: Sequence[Limit], borders: Sequence[int], own: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything in numbers.

    Args:
        read: Rows that were read.
        verdicts: One for each row that was scored.
        found: The rule's limits.
        borders: Of the buckets of lengths.
        own: About the model's own samples: prompts, samples, unfinished, and their (nll, tokens) as `scored`.
    """
    by_slot = _by_slot(verdicts)
    reasons: dict[str, int] = defaultdict(int)
    for verdict in verdicts:
        if verdict.reason:
            reasons[verdict.reason] += 1
    if read.too_long:
        reasons["too long"] = read.too_long
    total = sum(read.read.values())
    kept = sum(verdict.kept for verdict in verdicts)
    own_ppl = [perplexity(nll) for nll, _ in own["scored"]]
    return {
        "rows": {"read": total, "scored": len(verdicts), "kept": kept, "left_out": dict(reasons)},
        "kept_share": kept / total,
        "by_file": _shares(read.read, (verdict.row.source for verdict in verdicts if verdict.kept)),
        "by_source": _by_source(verdicts),
        "truncated_prompts": read.truncated,
        "limits": [_limit(one, borders) for one in found],
        "lower_perplexity_is_chosen": _lower_is_chosen(verdicts, by_slot),
        "perplexity": {
            **{slot: _quantiles(values) for slot, values in _values(by_slot, kept_only=False).items()},
            **({"own": _quantiles(own_ppl)} if own_ppl else {}),
        },
        "tokens": _tokens(by_slot),
        "own_samples": {key: value for key, value in own.items() if key != "scored"},
        "histograms": _histograms({**_values(by_slot, kept_only=False), **({"own": own_ppl} if own_ppl else {})}),
    }


def _by_slot(verdicts: Sequence[Verdict]) -> dict[str, list[tuple[float, int, bool]]]:
    """(nll, tokens, whether it is in what is kept) of every answer, by what it is."""
    slots: dict[str, list[tuple[float, int, bool]]] = defaultdict(list)
    for verdict in verdicts:
        whole = verdict.row.slots[0] != "response"
        for slot, (nll, tokens), passed in zip(verdict.row.slots, verdict.scored, verdict.passes, strict=True):
            slots[slot].append((nll, tokens, verdict.kept and (whole or passed)))
    return slots


def _values(slots: Mapping[str, Sequence[tuple[float, int, bool]]], *, kept_only: bool) -> dict[str, list[float]]:
    return {slot: [perplexity(nll) for nll, _, kept in rows if kept or not kept_only] for slot, rows in slots.items()}


def _limit(limit: Limit, borders: Sequence[int]) -> dict[str, Any]:
    return {
        "tokens": bucket_name(limit.bucket, borders),
        "own_samples": limit.own,
        "from_all_lengths": limit.pooled,
        "low": limit.low,
        "high": limit.high,
    }


def lower_is_chosen(chosen: Sequence[float], rejected: Sequence[float]) -> float | None:
    """AUC of "the answer with the lower perplexity is the chosen one": P(chosen < rejected) + P(equal) / 2.

    Over all chosen and all rejected answers (Mann-Whitney), 0.5 where perplexity says nothing; None where one kind is
    absent.
    """
    if not chosen or not rejected:
        return None
    ordered = sorted(rejected)
    wins = 0.0
    for value in chosen:
        equal_or_above = len(ordered) - bisect_left(ordered, value)
        above = len(ordered) - bisect_right(ordered, value)
        wins += above + 0.5 * (equal_or_above - above)
    return wins / (len(chosen) * len(rejected))


def _lower_is_chosen(
    verdicts: Sequence[Verdict], slots: Mapping[str, Sequence[tuple[float, int, bool]]]
) -> dict[str, float | None]:
    """Over all answers of both kinds, and within the pairs (a tie counts one half)."""
    better = [nll for slot in POSITIVE for nll, _, _ in slots.get(slot, ())]
    worse = [nll for slot in NEGATIVE for nll, _, _ in slots.get(slot, ())]
    pairs = [(one.scored[0][0], one.scored[1][0]) for one in verdicts if one.row.slots == PAIR]
    within = [1.0 if chosen < rejected else 0.5 if chosen == rejected else 0.0 for chosen, rejected in pairs]
    return {"auc": lower_is_chosen(better, worse), "within_pairs": sum(within) / len(within) if within else None}


def _by_source(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """By the column `source`, where rows have one."""
    named = [verdict for verdict in verdicts if verdict.row.data.get("source") is not None]
    total: dict[str, int] = defaultdict(int)
    for verdict in named:
        total[str(verdict.row.data["source"])] += 1
    return _shares(total, (str(verdict.row.data["source"]) for verdict in named if verdict.kept))


def _shares(total: Mapping[str, int], kept: Iterable[str]) -> dict[str, Any]:
    counts: dict[str, int] = defaultdict(int)
    for name in kept:
        counts[name] += 1
    return {name: {"rows": n, "kept": counts[name], "share": counts[name] / n} for name, n in total.items()}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {f"{q:g}": quantile(values, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}


def _tokens(slots: Mapping[str, Sequence[tuple[float, int, bool]]]) -> dict[str, Any]:
    """Mean and median answer tokens of each kind, before and after."""

    def sizes(rows: Sequence[tuple[float, int, bool]]) -> dict[str, float] | None:
        counts = [float(tokens) for _, tokens, _ in rows]
        return {"mean": sum(counts) / len(counts), "median": quantile(counts, 0.5)} if counts else None

    return {
        slot: {"before": sizes(rows), "after": sizes([row for row in rows if row[2]])} for slot, rows in slots.items()
    }


def _histograms(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Counts in bins of equal width in log perplexity."""
    logs = {name: [math.log(value) for value in some if math.isfinite(value)] for name, some in values.items()}
    everything = [value for some in logs.values() for value in some]
    low, high = min(everything), max(everything)
    width = (high - low) / BINS or 1.0
    counts = {name: [0] * BINS for name in logs}
    for name, some in logs.items():
        for value in some:
            counts[name][min(BINS - 1, int((value - low) / width))] += 1
    return {"edges": [math.exp(low + i * width) for i in range(BINS + 1)], "counts": counts}
