"""One metrics.csv as numbers; what cannot be read in it is left out, and said.

A picture and a table are made of it, and no training depends on it: a bad byte must not keep a run from ending.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from nashtune.notes import note

BAD = "\ufffd"
"""What bytes that are no UTF-8 are read as."""
LAST = 2**53
"""Above it a step is no number that a picture can be drawn of."""


def read_metrics_file(path: Path) -> list[tuple[int, dict[str, float]]]:
    """(optimiser step, name -> value) of each row, in order; one line says how many rows were left out.

    Args:
        path: As Lightning's CSVLogger writes it.
    """
    text = path.read_text(encoding="utf-8", errors="replace").replace("\0", BAD)
    lines = text.splitlines()
    cut = bool(lines) and not text.endswith(("\n", "\r"))  # half a number would be another number
    names = _fields(lines[0] if lines else "")
    rows = [] if cut and len(lines) == 1 else [_numbers(line, names) for line in lines[1 : len(lines) - cut]]
    lost = rows.count(None) + cut
    if lost or BAD in "".join(names) or (lines and not names):
        what = f"{lost} row{'' if lost == 1 else 's'}" if lost else "a column"
        note(f"{path}: {what} cannot be read, for the file was cut short or altered; the report goes without")
    return [row for row in rows if row is not None]


def _fields(line: str) -> list[str]:
    """Of the header; none where it is none, such as one with a field of more characters than `csv` reads."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _numbers(line: str, names: list[str]) -> tuple[int, dict[str, float]] | None:
    """A row; None where it is none."""
    try:
        values: Mapping[str, str] = dict(zip(names, next(csv.reader([line])), strict=True))
        step = int(values["step"])
        logged = {name: float(value) for name, value in values.items() if value and _is_metric(name)}
    except (ValueError, KeyError, StopIteration, csv.Error):
        return None
    return (step, logged) if 0 <= step <= LAST else None


def _is_metric(name: str) -> bool:
    return name not in ("step", "epoch") and BAD not in name
