"""What a reward or preference model was measured to be, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

NOTHING = "–"


def reward_table(report: Mapping[str, Any], *, title: str) -> Table:
    """What `reward_report` or `comparison_report` found."""
    rows = _comparison_rows(report) if report["kind"] == "comparisons" else _score_rows(report)
    table = Table("", "accuracy", "pairs", title=title, caption=_caption(report), caption_justify="left")
    table.columns[1].justify = table.columns[2].justify = "right"
    for i, section in enumerate(rows):
        for name, value, count in section:
            table.add_row(Text(name), value, count)
        if i < len(rows) - 1:
            table.add_section()
    found = report["calibration"]
    table.add_section()
    table.add_row("calibration error (ECE) / log loss", f"{found['ece']:.3f} / {found['log_loss']:.3f}", "")
    return table


Rows = list[tuple[str, str, str]]


def _score_rows(report: Mapping[str, Any]) -> list[Rows]:
    members, longer, agree = report["members_accuracy"], report["longer_is_better"], report.get("agreement")
    above = longer["above"]
    first: Rows = [("all", *_cells(report["accuracy"]))]
    if "top_1" in report:
        top = report["top_1"]
        first.append(("best of its list found (top 1)", _value(top), f"{top['lists']} lists"))
    if report["members"] > 1:
        worst_mean_best = f"{members['min']:.3f} / {members['mean']:.3f} / {members['max']:.3f}"
        first.append(("single members: worst / mean / best", worst_mean_best, ""))
    interval = f"{above['mean']:+.3f} ({above['low']:+.3f} to {above['high']:+.3f})"
    first += [("longer is better", *_cells(longer)), ("above longer is better", interval, "")]
    by_margin = [(f"scores apart {text}", *_cells(one)) for text, one in _ranges(report["by_margin"], ".3g")]
    by_length: Rows = [(f"better answer {name}", *_cells(one)) for name, one in _named(report["by_longer"])]
    by_length += [(f"its extra tokens {text}", *_cells(one)) for text, one in _ranges(report["by_length"], "+g")]
    found = [first, by_margin, by_length]
    if agree is not None:
        spread = NOTHING if agree["spread"] is None else f"{agree['spread']:.3f}"
        found.append(
            [
                ("two members decide alike", f"{agree['decisions']:.3f}", ""),
                ("spread of members / of their mean", spread, ""),
            ]
        )
    return found


def _comparison_rows(report: Mapping[str, Any]) -> list[Rows]:
    bias = report["position_bias"]
    return [
        [
            ("both orders, averaged", *_cells(report["accuracy"])),
            ("better answer shown first", *_cells(report["accuracy_first"])),
            ("better answer shown second", *_cells(report["accuracy_second"])),
        ],
        [
            ("verdict changes with the order", _value(bias["flips"]), ""),
            ("mean P(first shown is better)", _value(bias["first"]), ""),
        ],
    ]


def _caption(report: Mapping[str, Any]) -> str:
    parts = [f"{report['prompts']} prompts; ± is the standard error over prompts"]
    if report["kind"] == "scores":
        longer = report["longer_is_better"]
        parts.append(f"{100 * longer['level']:g} % bootstrap interval over prompts ({longer['resamples']} resamples)")
        if "top_1" in report:
            parts.append("pairs of a list count together as one")
    return "; ".join(parts)


def _named(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    words = {"longer": "is longer", "shorter": "is shorter", "equal": "is as long"}
    return [(words[name], one) for name, one in found.items() if one["pairs"]]


def _ranges(buckets: Sequence[Mapping[str, Any]], form: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Each with its range in words: all but the last one end before the next begins."""
    found = []
    for i, one in enumerate(buckets):
        below = "below " if i < len(buckets) - 1 else ""
        found.append((f"{one['from']:{form}} to {below}{one['to']:{form}}", one))
    return found


def _cells(found: Mapping[str, Any]) -> tuple[str, str]:
    return _value(found), f"{found['pairs']}"


def _value(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return NOTHING
    error = "" if found["se"] is None else f" ± {found['se']:.3f}"
    return f"{found['mean']:.3f}{error}"
