"""Values with intervals, one policy a row, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nashtune.html.drawing import LETTER, WIDTH, Figure, Mark, Scale, Values, grid, label, scale, shortened
from nashtune.html.words import fixed, interval

ROW = 28.0
TOP, BELOW = 12.0, 30.0
MOST_NAME = 120.0


@dataclass(frozen=True)
class Row:
    """One policy.

    Args:
        name: Its name.
        value: Its value, finite.
        low: Lower end of its interval; None where there is none.
        high: Upper end.
        colour: Number of its colour.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    colour: int = 0


def interval_figure(
    name: str,
    title: str,
    rows: Sequence[Row],
    *,
    about: str,
    unit: str,
    places: int = 3,
    reference: float | None = None,
    bars: bool = False,
    pale: bool = False,
    within: tuple[float, float] | None = None,
    empty: str = "nothing to show",
) -> Figure:
    """A dot with its interval for each policy, or a bar from zero.

    Args:
        name: Of the figure, see `Figure`.
        title: Above it.
        rows: In order, the first one on top.
        about: What is seen, in a sentence.
        unit: Name of the value, for the table.
        places: Behind the point.
        reference: A value that is marked by a line.
        bars: Bars in place of dots.
        pale: Whether bars are pale, as what they show is not sure.
        within: Ends of the value axis.
        empty: Said where there are no rows.
    """
    if not rows:
        return Figure(name, title, about, empty=empty)
    gutter = min(MOST_NAME, max(len(row.name) for row in rows) * LETTER) + 14
    right = WIDTH - 50.0  # room for the numbers
    bottom = TOP + ROW * len(rows)
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    ends += ([] if reference is None else [reference]) + ([0.0] if bars else [])
    x = scale(ends, gutter, right, count=4, within=within)
    marks = grid(x, None, (gutter, TOP, right, bottom))
    if reference is not None:
        marks.append(Mark("line", "reference", {"x1": x(reference), "x2": x(reference), "y1": TOP, "y2": bottom}))
    for place, row in enumerate(rows):
        marks += _row(
            row, x, TOP + ROW * (place + 0.5), gutter, places, bar=("bar pale" if pale else "bar") if bars else ""
        )
    values = [[row.name, fixed(row.value, places), interval(row.low, row.high, places)] for row in rows]
    columns = ["policy", unit, "interval"]
    if not any(row[2] for row in values):
        columns, values = columns[:2], [row[:2] for row in values]
    return Figure(name, title, about, bottom + BELOW, marks, values=Values(columns, values))


def _row(row: Row, x: Scale, y: float, gutter: float, places: int, *, bar: str) -> list[Mark]:
    colour = f"c{row.colour}"
    ends = interval(row.low, row.high, places)
    told = f"{row.name}: {fixed(row.value, places)}{f', {ends}' if ends else ''}"
    marks = [
        label(gutter - 10, y + 4, shortened(row.name, gutter - 12), anchor="end", style="name", title=row.name),
        label(WIDTH - 4, y + 4, fixed(row.value, places), anchor="end", style="figure"),
    ]
    if bar:
        start, end = sorted((x(0.0), x(row.value)))
        box: dict[str, float | str] = {"x": start, "y": y - 8, "width": max(round(end - start, 2), 1.5), "height": 16}
        marks.append(Mark("rect", f"{bar} {colour}", {**box, "rx": 2}, told))
    if row.low is not None and row.high is not None:
        low, high = x(row.low), x(row.high)
        style = "whisker thin" if bar else f"whisker {colour}"
        marks.append(Mark("line", style, {"x1": low, "x2": high, "y1": y, "y2": y}, told))
        marks += [Mark("line", style, {"x1": end, "x2": end, "y1": y - 4, "y2": y + 4}) for end in (low, high)]
    if not bar:
        marks.append(Mark("circle", f"dot {colour}", {"cx": x(row.value), "cy": y, "r": 4.6}, told))
    return marks
