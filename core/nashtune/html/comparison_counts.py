"""What the judgements and answers of a comparison come to when they are counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from nashtune.comparison.tabulated import TIED
from nashtune.html.drawing import Values
from nashtune.html.words import listed, number

MANY_CUT = 0.2
"""Share of answers cut at the token limit from which on a page warns: such answers are judged without their end."""
Rows = Sequence[Mapping[str, Any]]


def outcomes(verdicts: Rows) -> dict[tuple[str, str], Counter[str]]:
    """By pair of policies how often the first won, lost, tied, and so on.

    Args:
        verdicts: Rows of judgements.parquet.

    Returns:
        For each (first, second) the counts "wins", "ties", "losses" of the mean of both orders, "equal" of those ties
        whose answers are equal, so that nobody judged them, "unanswered", and "changed": those whose two orders have
        different winners.
    """
    asked: dict[tuple[str, str, int, int], dict[str, float | None]] = defaultdict(dict)
    for one in verdicts:
        asked[one["first"], one["second"], one["seed"], one["prompt"]][one["order"]] = one["p"]
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (first, second, *_), orders in asked.items():
        found[first, second].update(_outcome(orders))
    return found


def _outcome(orders: Mapping[str, float | None]) -> list[str]:
    if "equal" in orders:
        return ["ties", "equal"]
    given, swapped = orders.get("given"), orders.get("swapped")
    if given is None or swapped is None:
        return ["unanswered"]
    more = (given + swapped - 1) / 2
    result = "ties" if abs(more) < TIED else "wins" if more > 0 else "losses"
    return [result, "changed"] if (given - 0.5) * (swapped - 0.5) < 0 else [result]


def outcome_table(verdicts: Rows, names: Sequence[str]) -> Values:
    """One row for each two policies.

    Args:
        verdicts: Rows of judgements.parquet.
        names: Policies, best first.
    """
    found = outcomes(verdicts)
    kinds = ("wins", "ties", "losses", "equal", "changed", "unanswered")
    rows = []
    for a, b in combinations(names, 2):
        counts = found.get((a, b))
        if counts is None:  # the file has the pair the other way round
            other = found.get((b, a), Counter[str]())
            counts = Counter({**other, "wins": other["losses"], "losses": other["wins"]})
        rows.append([f"{a} over {b}", *(number(counts[kind]) for kind in kinds)])
    columns = ["", "wins", "ties", "losses", "ties of equal answers", "winner changed with the order", "no verdict"]
    note = "A win is a mean P above ½ over both orders, however little; a tie counts ½, be it that the "
    note += "judge sees no difference, or that the answers are equal, which were not judged."
    return Values(columns, rows, note)


def cut_shares(answers: Rows) -> dict[str, float]:
    """Share of each policy's answers that were cut at the token limit."""
    total, cut = Counter[str](), Counter[str]()
    for one in answers:
        total[one["policy"]] += 1
        cut[one["policy"]] += not one["finished"]
    return {name: cut[name] / count for name, count in total.items()}


def mean_rewards(answers: Rows) -> dict[str, float]:
    """Mean reward of each policy's answers; empty where the judge gives none."""
    rewards: dict[str, list[float]] = defaultdict(list)
    for one in answers:
        if one["reward"] is not None:
            rewards[one["policy"]].append(one["reward"])
    return {name: fmean(own) for name, own in rewards.items()}


def cut_warning(shares: Mapping[str, float]) -> list[str]:
    """Who is cut often, in a sentence; none where nobody is."""
    many = [f"{name} {100 * share:.0f} %" for name, share in shares.items() if share > MANY_CUT]
    if not many:
        return []
    return [
        f"Answers cut at the token limit: {listed(many)}. They were judged without their end: raise "
        "samples.max_new_tokens of the run."
    ]


def merged(remarks: Sequence[str], specs: Sequence[str]) -> list[str]:
    """One sentence for each kind of remark: what differs in a spec's name alone is said once, with the other names.

    Args:
        remarks: Sentences.
        specs: Names of all specs.
    """
    kinds: dict[tuple[str, ...], list[str]] = {}
    first: dict[tuple[str, ...], str] = {}
    for remark in remarks:
        words = remark.split(" ")
        named = [word.rstrip(":;,.") for word in words if word.rstrip(":;,.") in specs]
        kind = tuple("" if len(named) == 1 and word.rstrip(":;,.") in specs else word for word in words)
        first.setdefault(kind, remark)
        others = kinds.setdefault(kind, [])
        if first[kind] != remark and named[0] not in others:
            others.append(named[0])
    return [
        f"{first[kind].rstrip('.')} (likewise {listed(others)})" if others else first[kind]
        for kind, others in kinds.items()
    ]
