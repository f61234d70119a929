"""What a plot of points is made of: the points with their intervals, and axes and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Ends = tuple[float, float] | None


@dataclass(frozen=True)
class Point:
    """One point.

    Args:
        name: Written beside it; "" for none.
        x: Finite.
        y: Finite.
        x_ends: Interval of `x`; None where there is none.
        y_ends: Interval of `y`.
        colour: Number of its colour.
        faint: Name, x and y of smaller points in the same colour: single seeds.
        told: What pointing at it tells, besides its place.
    """

    name: str
    x: float
    y: float
    x_ends: Ends = None
    y_ends: Ends = None
    colour: int = 0
    faint: Sequence[tuple[str, float, float]] = ()
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """What stands in a plot beside its points.

    Args:
        x_name: Below the plot.
        y_name: Above it.
        path: A line through these places.
        path_name: What it is, for the legend.
        onward: Whether the line goes on, level, to the right end.
        reference: A value of y that is marked by a line.
        diagonal: Whether y = x is marked.
        within: Ends of both axes; else they follow from the points.
        from_zero: x is never below 0 but by noise: an interval does not draw the axis there.
    """

    x_name: str
    y_name: str
    path: Sequence[tuple[float, float]] = field(default=())
    path_name: str = ""
    onward: bool = False
    reference: float | None = None
    diagonal: bool = False
    within: tuple[float, float] | None = None
    from_zero: bool = False
