"""Tables of what a run was: its data, its cost, the machine it ran on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nashtune.html.drawing import Values
from nashtune.html.words import NOTHING, duration, number

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Tile:
    """A figure at the top of a page.

    Args:
        name: What it is.
        value: The number.
        detail: Its unit, its interval, or what to compare it with.
    """

    name: str
    value: str
    detail: str = ""


def paper_link(paper: str) -> str:
    """Address of a paper on arXiv; "" for others."""
    found = ARXIV.search(paper)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


def data_table(reports: Mapping[str, Mapping[str, Any]]) -> Values | None:
    """What became of the rows of each split; None where nothing is known."""
    if not reports:
        return None
    columns = ["split", "source", "rows", "read", "used", "left out", "cut", "repeated", "tokens", "fingerprint"]
    rows = []
    for split, one in reports.items():
        lengths = [one.get(part) for part in ("prompt_tokens", "completion_tokens")]
        tokens = sum(length["total"] for length in lengths if length)
        rows.append(
            [
                split,
                str(one["source"]),
                str(one["kind"]),
                number(one["read"]),
                number(one["used"]),
                number(one["dropped_overflow"] + one["dropped_completion"]),
                number(one["truncated"]),
                number(one["duplicates"]),
                number(tokens),
                str(one["fingerprint"])[:12],
            ]
        )
    notes = [f"{split}: {note}" for split, one in reports.items() for note in one.get("notes") or ()]
    return Values(columns, rows, "; ".join(notes))


def costs(report: Mapping[str, Any], attempts: int) -> Values | None:
    """What the run has spent; None before its end."""
    speed = report.get("throughput")
    if not speed:
        return None
    rows = [
        ["optimiser steps", number(report["steps"])],
        ["time inside training steps", duration(speed["training_seconds"])],
        ["tokens trained on, per second", number(round(speed["tokens_per_second"]))],
    ]
    if "positions_per_second" in speed:
        rows.append(["positions computed, per second", number(round(speed["positions_per_second"]))])
    rows += [
        ["padding", f"{100 * speed['padding_share']:.1f} %"],
        ["peak memory", f"{speed['peak_memory_gib']:.2f} GiB"],
    ]
    rounds = report.get("rounds") or []
    if rounds:
        rows += [
            ["completions drawn", number(sum(row["completions"] for row in rounds))],
            ["tokens drawn", number(sum(row["tokens"] for row in rounds))],
        ]
        judged = sum(row.get("judgements", 0) + row.get("rewards", 0) for row in rounds)
        rows.append(["judgements or rewards", number(judged)])
    rows += [[f"oracle: {name}", number(count)] for name, count in (report.get("oracle") or {}).items()]
    return Values(["", ""], rows, _of_attempts(report, attempts))


def _of_attempts(report: Mapping[str, Any], attempts: int) -> str:
    """What time and speed are of, where a run was stopped and gone on with."""
    if attempts < 2:
        return ""
    if "attempts" not in report:  # an earlier version kept those of the last one alone
        return "Time, memory and speed are of the attempt that finished the run."
    lost = report["throughput"]["lost_seconds"]
    more = f"; of the time {duration(lost)} were behind the checkpoint that was gone on from" if lost else ""
    return f"Time, memory and speed are of all {len(report['attempts'])} attempts{more}."


def attempts_table(report: Mapping[str, Any]) -> Values | None:
    """One row an attempt, with its command; None of a run that was not stopped, or does not say."""
    attempts = report.get("attempts") or []
    if len(attempts) < 2:
        return None
    rows = [
        [
            str(place),
            str(one["began"] or NOTHING),
            number(one["steps"]),
            number(one["tokens"]),
            NOTHING if one["training_seconds"] is None else duration(one["training_seconds"]),
            " ".join(one["command"] or [NOTHING]),
        ]
        for place, one in enumerate(attempts, start=1)
    ]
    return Values(["attempt", "began", "steps", "tokens", "time in steps", "command"], rows)


def environment_table(found: Mapping[str, Any]) -> Values | None:
    """Versions and machine, one fact a row; None where the run has written none down."""
    rows = [[name, value] for name, value in _flat(found, "")]
    return Values(["", ""], rows) if rows else None


def _flat(part: Any, name: str) -> list[tuple[str, str]]:
    if isinstance(part, Mapping):
        inner = [_flat(value, f"{name}: {key}" if name else str(key)) for key, value in part.items()]
        return [row for rows in inner for row in rows]
    if isinstance(part, list):
        joined = all(isinstance(one, str | int | float) for one in part)
        if joined:
            return [(name, " ".join(map(str, part)))] if part else []
        return [row for place, one in enumerate(part, start=1) for row in _flat(one, f"{name} {place}")]
    return [] if part is None else [(name, str(part))]
