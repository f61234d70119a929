"""Names beside the points of a plot, where they cover as little as can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

from nashtune.html.drawing import LETTER, Mark, label

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in units of the drawing."""
DOWN = (-12, 12, 0, -26, 26, -40, 40, -54, 54)
APART = (10, 24, 44)
FAR = 26.0
"""Distance from which on a thin line leads from a point to its name."""


@dataclass(frozen=True)
class Named:
    """A point that gets its name.

    Args:
        name: What it is called.
        x: Its place, in units.
        y: Likewise.
        colour: Number of its colour, for the line that leads to it.
    """

    name: str
    x: float
    y: float
    colour: int


def names(points: Sequence[Named], drawn: Sequence[Box], frame: Box) -> list[Mark]:
    """Each name near its point, where it meets no other name and nothing that is drawn if there is such a place.

    Args:
        points: The points.
        drawn: What a name had better not cover.
        frame: The plot, which no name leaves if it can stay.
    """
    taken, marks = list(drawn), []
    for one in points:
        width = len(one.name) * LETTER
        places: list[tuple[float, float, str]] = [
            (one.x + side * apart, one.y + 4 + down, "start" if side > 0 else "end")
            for down in DOWN
            for apart in APART
            for side in (1, -1)
        ]
        boxes = [_box(place, width) for place in places]
        costs = [_cost(box, taken, frame) + 0.6 * _distance(one, box) for box in boxes]
        best = costs.index(min(costs))
        at_x, at_y, anchor = places[best]
        taken.append(boxes[best])
        if _distance(one, boxes[best]) > FAR:
            line: dict[str, float | str] = {"x1": one.x, "y1": one.y, "x2": round(at_x, 2), "y2": round(at_y - 4, 2)}
            marks.append(Mark("line", f"leader c{one.colour}", line))
        marks.append(label(at_x, at_y, one.name, anchor=anchor, style="name"))
    return marks


def _distance(one: Named, box: Box) -> float:
    """From a point to the nearest place of a box."""
    left, top, right, bottom = box
    return hypot(max(left - one.x, one.x - right, 0.0), max(top - one.y, one.y - bottom, 0.0))


def _box(place: tuple[float, float, str], width: float) -> Box:
    at_x, at_y, anchor = place
    left = at_x if anchor == "start" else at_x - width
    return left, at_y - 11, left + width, at_y + 3


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    """How much of a box lies on others, or outside of the plot."""
    left, top, right, bottom = box
    outside = max(0.0, frame[0] - left) + max(0.0, right - frame[2])
    outside += max(0.0, frame[1] - top) + max(0.0, bottom - frame[3])
    over = sum(max(0.0, min(right, c) - max(left, a)) * max(0.0, min(bottom, d) - max(top, b)) for a, b, c, d in taken)
    return over + 20 * outside
