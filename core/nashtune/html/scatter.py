"""Points with intervals both ways: gain against KL divergence, and what a model claims against what is so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

from nashtune.html.drawing import WIDTH, Figure, Mark, Scale, Values, grid, gutter, label, polyline, scale
from nashtune.html.placing import Box, Named, names
from nashtune.html.plane import Ends, Plane, Point
from nashtune.html.words import fixed, interval, number

SIZES = {False: (WIDTH, 270.0), True: (1000.0, 420.0)}
"""Width and height of a drawing, of a column's width and as wide as the page."""
LONG = 2.5
"""So many times the median length of all intervals one may have and still set the ends of an axis."""


def scatter_figure(
    name: str,
    title: str,
    points: Sequence[Point],
    plane: Plane,
    *,
    about: str,
    wide: bool = False,
    empty: str = "nothing to show",
) -> Figure:
    """Points in a plane.

    Args:
        name: Of the figure, see `Figure`.
        title: Above it.
        points: The points; the first one is painted last, over all others.
        plane: Axes and lines.
        about: What is seen, in a sentence.
        wide: As wide as the page, with a narrow drawing for telephones.
        empty: Said where there are no points.
    """
    if not points:
        return Figure(name, title, about, empty=empty)
    legend = [(plane.path_name, "trail")] if plane.path_name and plane.path else []
    found = Figure(name, title, about, legend=legend, values=_values(points, plane))
    drawings = [_drawing(points, plane, *SIZES[one]) for one in ((True, False) if wide else (False,))]
    figures = [replace(found, marks=marks, width=size[0], height=size[1]) for marks, size in drawings]
    return replace(figures[0], narrow=figures[1]) if wide else figures[0]


def _drawing(
    points: Sequence[Point], plane: Plane, width: float, height: float
) -> tuple[list[Mark], tuple[float, float]]:
    top, right, bottom = 28.0, width - 12.0, height - 44.0
    ys = _reached([(one.y, one.y_ends, [b for _, _, b in one.faint]) for one in points])
    y = scale([*ys, *([] if plane.reference is None else [plane.reference])], bottom, top, within=plane.within)
    left = gutter(y)
    xs = _reached([(one.x, one.x_ends, [a for _, a, _ in one.faint]) for one in points])
    if plane.from_zero:
        lowest = min(0.0, *(a for one in points for a in (one.x, *(a for _, a, _ in one.faint))))
        xs = [max(value, lowest) for value in xs]
    x = scale(xs, left, right, within=plane.within, count=5 if width == WIDTH else 9)
    marks = grid(x, y, (left, top, right, bottom))
    marks += [label(right, height - 8, plane.x_name, anchor="end"), label(4, 14, plane.y_name)]
    if plane.diagonal:
        marks.append(Mark("line", "reference", {"x1": x(x.low), "y1": y(x.low), "x2": x(x.high), "y2": y(x.high)}))
    if plane.reference is not None:
        at = y(plane.reference)
        marks.append(Mark("line", "reference", {"x1": left, "x2": right, "y1": at, "y2": at}))
    path = [(x(a), y(b)) for a, b in plane.path]
    path += [(right, path[-1][1])] if path and plane.onward else []
    for one in reversed(points):
        marks += _around(one, x, y, plane)
    if len(path) > 1:
        marks.append(Mark("path", "trail", {"d": polyline(path)}))
    marks += [_dot(one, x, y, plane) for one in reversed(points)]
    drawn = [box for one in points for box in _boxes(one, x, y)]
    for (a, b), (c, d) in pairwise(path):
        steps = [i / 20 for i in range(21)]
        drawn += [(a + (c - a) * s - 1, b + (d - b) * s - 1, a + (c - a) * s + 1, b + (d - b) * s + 1) for s in steps]
    named = [Named(one.name, x(one.x), y(one.y), one.colour) for one in points if one.name]
    return marks + names(named, drawn, (left, top, right, bottom)), (width, height)


def _reached(values: Sequence[tuple[float, Ends, Sequence[float]]]) -> list[float]:
    """What an axis holds: all points, and all intervals but those that would make all others small."""
    lengths = [ends[1] - ends[0] for _, ends, _ in values if ends]
    most = LONG * median(lengths) if lengths else 0.0
    found = [number for value, _, more in values for number in (value, *more)]
    return found + [end for _, ends, _ in values if ends and ends[1] - ends[0] <= most for end in ends]


def _around(one: Point, x: Scale, y: Scale, plane: Plane) -> list[Mark]:
    """Intervals and single seeds of a point."""
    style, at_x, at_y = f"whisker c{one.colour}", x(one.x), y(one.y)
    marks = []
    for _, a, b in one.faint:
        marks.append(Mark("line", f"leader c{one.colour}", {"x1": at_x, "y1": at_y, "x2": x(a), "y2": y(b)}))
    for name, a, b in one.faint:
        told = f"{name}: {_place(a, b, plane)}"
        marks.append(Mark("circle", f"dot faint c{one.colour}", {"cx": x(a), "cy": y(b), "r": 3.0}, told))
    if one.x_ends:
        low, high = _inside(one.x_ends, x)
        marks.append(Mark("line", style, {"x1": x(low), "x2": x(high), "y1": at_y, "y2": at_y}))
        low_end = max(one.x_ends[0], x.low) if plane.from_zero else one.x_ends[0]
        for end, at, out in ((low_end, x(x.low), -1), (one.x_ends[1], x(x.high), 1)):
            if not x.low <= end <= x.high:
                marks.append(_arrow(one.colour, [(at, at_y), (at - 8 * out, at_y - 5), (at - 8 * out, at_y + 5)]))
    if one.y_ends:
        low, high = _inside(one.y_ends, y)
        marks.append(Mark("line", style, {"x1": at_x, "x2": at_x, "y1": y(low), "y2": y(high)}))
        for end, at, out in ((one.y_ends[0], y(y.low), 1), (one.y_ends[1], y(y.high), -1)):
            if not y.low <= end <= y.high:
                marks.append(_arrow(one.colour, [(at_x, at), (at_x - 5, at - 8 * out), (at_x + 5, at - 8 * out)]))
    return marks


def _inside(ends: tuple[float, float], axis: Scale) -> tuple[float, float]:
    return max(ends[0], axis.low), min(ends[1], axis.high)


def _arrow(colour: int, corners: Iterable[tuple[float, float]]) -> Mark:
    return Mark("path", f"arrow c{colour}", {"d": polyline(corners) + "Z"}, "the interval goes on; see Values")


def _dot(one: Point, x: Scale, y: Scale, plane: Plane) -> Mark:
    told = f"{one.name + ': ' if one.name else ''}{_place(one.x, one.y, plane)}{one.told}"
    return Mark("circle", f"dot c{one.colour}", {"cx": x(one.x), "cy": y(one.y), "r": 5.2}, told)


def _place(x: float, y: float, plane: Plane) -> str:
    return f"{plane.x_name} {number(x)}, {plane.y_name} {fixed(y, 3)}"


def _boxes(one: Point, x: Scale, y: Scale) -> list[Box]:
    """Boxes around a point, its intervals and its faint ones."""
    at_x, at_y = x(one.x), y(one.y)
    found = [(at_x - 7, at_y - 7, at_x + 7, at_y + 7)]
    found += [(x(a) - 3, y(b) - 3, x(a) + 3, y(b) + 3) for _, a, b in one.faint]
    if one.x_ends:
        low, high = _inside(one.x_ends, x)
        found.append((x(low), at_y - 2, x(high), at_y + 2))
    if one.y_ends:
        low, high = _inside(one.y_ends, y)
        found.append((at_x - 2, y(high), at_x + 2, y(low)))
    return found


def _values(points: Sequence[Point], plane: Plane) -> Values:
    rows = [
        [one.name or "·", number(one.x, 4), _told(one.x_ends), number(one.y, 4), _told(one.y_ends)] for one in points
    ]
    if not any(row[2] or row[4] for row in rows):
        rows = [[row[0], row[1], row[3]] for row in rows]
    columns = ["", plane.x_name, plane.y_name]
    if rows and len(rows[0]) == 5:
        columns = ["", plane.x_name, "interval", plane.y_name, "interval"]
    single = [[name, number(a, 4), number(b, 4)] for one in points for name, a, b in one.faint]
    if len(columns) == 5:
        single = [[name, a, "", b, ""] for name, a, b in single]
    return Values(columns, [*rows, *single])


def _told(ends: Ends) -> str:
    return interval(ends[0], ends[1], 3) if ends else ""
