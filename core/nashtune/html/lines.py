"""Curves over steps or rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nashtune.html.drawing import WIDTH, Figure, Mark, Values, grid, gutter, label, polyline, scale
from nashtune.html.words import number, thinned

HEIGHT = 224.0
TOP, RIGHT, BOTTOM = 28.0, WIDTH - 10.0, HEIGHT - 44.0
Points = Sequence[tuple[float, float]]
MOST_POINTS = 800  # of a drawn path: more than a screen has columns for it
MOST_HITS = 120
MOST_ROWS = 40


@dataclass(frozen=True)
class Series:
    """One curve.

    Args:
        name: Its name in the legend and in the table.
        points: (x, value) in order of x, all finite.
        colour: Number of its colour, 0 to 7.
        noisy: Draw it pale, with its moving mean in full.
        dots: Mark each point.
        band: Low and high at each point, of an interval or a spread around it.
        band_name: What the band is.
    """

    name: str
    points: Points
    colour: int = 0
    noisy: bool = False
    dots: bool = False
    band: Points | None = None
    band_name: str = ""


def line_figure(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    about: str,
    x_name: str,
    unit: str,
    reference: float | None = None,
    within: tuple[float, float] | None = None,
    over: tuple[float, float] | None = None,
    empty: str = "nothing was logged",
) -> Figure:
    """Curves in one plot.

    Args:
        name: Of the figure, see `Figure`.
        title: Above it.
        series: The curves; those without points are left out.
        about: What is seen, in a sentence.
        x_name: What x is.
        unit: Of the values.
        reference: A value that is marked by a line.
        within: Ends of the value axis; else they follow from the values.
        over: Ends of the x axis, which all figures of a page may share; else they follow from the points.
        empty: Said where no curve has points.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return Figure(name, title, about, empty=empty)
    values = [value for one in drawn for _, value in one.points]
    values += [value for one in drawn for ends in one.band or () for value in ends]
    values += [] if reference is None else [reference]
    y = scale(values, BOTTOM, TOP, within=within)
    left, right, bottom = gutter(y), RIGHT, BOTTOM
    x = scale([*(over or ()), *(at for one in drawn for at, _ in one.points)], left, right, whole=True, tight=True)
    marks = grid(None, y, (left, TOP, right, bottom))
    marks += [label(x(tick), bottom + 17, number(tick, 4), anchor="middle") for tick in x.ticks]
    marks += [label(right, HEIGHT - 8, x_name, anchor="end"), label(4, 14, unit)]
    if reference is not None:
        marks.append(Mark("line", "reference", {"x1": left, "x2": right, "y1": y(reference), "y2": y(reference)}))
    for one in drawn:
        colour, places = f"c{one.colour}", [(x(at), y(value)) for at, value in one.points]
        if one.band:
            lows = [(x(at), y(low)) for (at, _), (low, _) in zip(one.points, one.band, strict=True)]
            highs = [(x(at), y(high)) for (at, _), (_, high) in zip(one.points, one.band, strict=True)]
            marks.append(Mark("path", f"band {colour}", {"d": polyline([*highs, *reversed(lows)]) + "Z"}))
        if one.noisy:
            marks.append(Mark("path", f"line pale {colour}", {"d": polyline(_decimated(places))}))
            means = moving_mean([value for _, value in one.points])
            places = [(at, y(value)) for (at, _), value in zip(places, means, strict=True)]
        marks.append(Mark("path", f"line {colour}", {"d": polyline(_decimated(places))}))
        style = f"dot {colour}" if one.dots else f"dot hit {colour}"
        marks += [
            Mark(
                "circle",
                style,
                {"cx": x(at), "cy": y(value), "r": 3.2},
                f"{x_name} {number(at)}: {one.name + ' ' if one.name else ''}{number(value, 4)}",
            )
            for at, value in (one.points if one.dots else thinned(one.points, MOST_HITS))
        ]
    legend = [(one.name, f"c{one.colour}") for one in drawn if one.name]
    legend += [(one.band_name, f"band c{one.colour}") for one in drawn if one.band and one.band_name]
    return Figure(name, title, about, HEIGHT, marks, legend, _table(drawn, x_name, unit))


def moving_mean(values: Sequence[float]) -> list[float]:
    """Mean of each value with those around it, a sixteenth of all on either side as far as there are any."""
    reach = max(1, len(values) // 16)
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [math.fsum(window) / len(window) for window in windows]


def _decimated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of many points the lowest and the highest of each stretch, so that no spike is lost."""
    if len(points) <= MOST_POINTS:
        return list(points)
    size = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        part = range(start, min(start + size, len(points)))
        ends = {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
        kept += [points[i] for i in sorted(ends)]
    return kept


def _table(series: Sequence[Series], x_name: str, unit: str) -> Values:
    steps = sorted({at for one in series for at, _ in one.points})
    shown = thinned(steps, MOST_ROWS)
    known = [dict(one.points) for one in series]
    rows = [[number(at), *(number(each.get(at), 5) for each in known)] for at in shown]
    note = f"{len(shown)} of {len(steps)} points, evenly" if len(shown) < len(steps) else ""
    return Values([x_name, *(one.name or unit or "value" for one in series)], rows, note)
