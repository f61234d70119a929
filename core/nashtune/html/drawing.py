"""What figures are made of: marks at places, scales with ticks, and a table of the values behind them.

A figure is drawn in a box `WIDTH` units wide, which a page scales to its column: on a telephone it fills the screen.
One that needs the whole width of a page has two drawings, and the page shows the one that fits the screen.
Its text is text, its colours are the page's own, so that light and dark need no second picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from matplotlib.ticker import MaxNLocator

from nashtune.html.words import number

WIDTH = 340.0
LETTER = 6.9
"""Mean width of a letter of a label, in units."""
DIGIT = 7.7
"""Width of a digit in the widest of the fonts that a page may get."""


@dataclass(frozen=True)
class Mark:
    """One SVG element.

    Args:
        kind: Its name: path, circle, line, rect, polygon or text.
        style: Its classes; `c0` to `c7` are the colours of series.
        at: Its attributes.
        title: What pointing at it tells.
        text: Of a text.
    """

    kind: str
    style: str
    at: dict[str, float | str]
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Values:
    """A table: what a figure shows, as numbers.

    Args:
        columns: Names of its columns.
        rows: As many texts in each.
        note: Below it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing with a title, a legend and its values.

    Args:
        name: Letters, digits and hyphens; no other figure of the page has it.
        title: Above it.
        about: A sentence: what is seen.
        height: Of the box, in units.
        marks: In the order in which they are painted.
        legend: (text, class) of each series that needs a name.
        values: The numbers.
        empty: Said in place of a drawing that has nothing to show.
        plain: Whether `about` says no more than title and axes do, so that it is for readers by ear alone.
        width: Of the box.
        narrow: The same for a telephone, of a figure that is as wide as the page.
    """

    name: str
    title: str
    about: str
    height: float = 0.0
    marks: Sequence[Mark] = ()
    legend: Sequence[tuple[str, str]] = ()
    values: Values | None = None
    empty: str = ""
    plain: bool = False
    width: float = WIDTH
    narrow: Figure | None = None


@dataclass(frozen=True)
class Scale:
    """From data to units of a drawing.

    Args:
        low: Smallest value.
        high: Largest value, above `low`.
        start: Where the smallest one is.
        end: Where the largest one is.
        ticks: Round values between them.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float] = field(default=())

    def __call__(self, value: float) -> float:
        """Place of a value, to a hundredth of a unit."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)


def scale(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    count: int = 5,
    whole: bool = False,
    tight: bool = False,
    within: tuple[float, float] | None = None,
) -> Scale:
    """A scale that holds all values and ends at round ones.

    Args:
        values: At least one finite number.
        start: Where the smallest one goes.
        end: Where the largest one goes.
        count: About so many ticks.
        whole: Ticks at whole numbers alone.
        tight: Whether it ends at the values themselves.
        within: Ends that it has in any case.
    """
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if within is None else within
    if high <= low:
        pad = 0.5 if whole or low == 0 else abs(low) * 0.05
        low, high = low - pad, high + pad
    ticks = [float(tick) for tick in MaxNLocator(count, integer=whole, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    if not tight and within is None:
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    room = (high - low) * 1e-9
    return Scale(low, high, start, end, [tick for tick in ticks if low - room <= tick <= high + room])


def gutter(y: Scale) -> float:
    """Room on the left for the labels of a scale's ticks."""
    return 10.0 + DIGIT * max(len(number(tick, 4)) for tick in y.ticks)


def grid(x: Scale | None, y: Scale | None, box: tuple[float, float, float, float]) -> list[Mark]:
    """Lines and labels of the ticks.

    Args:
        x: Ticks below; None for none.
        y: Ticks on the left; None for none.
        box: Left, top, right and bottom of the plot.
    """
    left, top, right, bottom = box
    marks: list[Mark] = []
    for tick in y.ticks if y else ():
        at = y(tick) if y else 0.0
        marks.append(Mark("line", "rule", {"x1": left, "x2": right, "y1": at, "y2": at}))
        marks.append(label(left - 7, at + 4, number(tick, 4), anchor="end"))
    for tick in x.ticks if x else ():
        at = x(tick) if x else 0.0
        marks.append(Mark("line", "rule", {"x1": at, "x2": at, "y1": top, "y2": bottom}))
        marks.append(label(at, bottom + 17, number(tick, 4), anchor="middle"))
    return marks


def label(x: float, y: float, text: str, *, anchor: str = "start", style: str = "label", title: str = "") -> Mark:
    """A text at a place."""
    return Mark("text", style, {"x": round(x, 2), "y": round(y, 2), "text-anchor": anchor}, title, text)


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """The `d` of a path through points."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def shortened(text: str, units: float) -> str:
    """A text that fits into so many units, with "…" where it was cut."""
    most = max(4, int(units / LETTER))
    return text if len(text) <= most else text[: most - 1] + "…"
