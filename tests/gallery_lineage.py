"""Which spec is which other one, exactly or nearly: read from `about.reduces_to`, as edges, links, and a picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from gallery_draw import BLUE, GREY, INK, RED, STYLE
from nashtune.spec.reductions import Reduction

KINDS = {"offline": "Offline", "game": "Games", "rl": "Reinforcement learning", "reward": "Reward models"}
"""Kind of a spec -> its heading, in the order of the page."""
ROW, COLUMN, NAMES, LETTER = 0.27, 2.75, 1.85, 0.075
"""In inches: height of a row, distance of columns, width of a column's names, about that of a letter."""


Edges = Mapping[str, Mapping[str, bool]]
"""Of each spec the others that it reduces to, and whether exactly."""


def parents(found: Sequence[Reduction], names: Collection[str]) -> dict[str, bool]:
    """The other specs that entries name, in their order, and whether one of the entries is exact."""
    known: dict[str, bool] = {}
    for one in found:
        if one.method in names:
            known[one.method] = known.get(one.method, False) or one.exact
    return known


def linked(one: Reduction, names: Collection[str]) -> str:
    """The entry with the other spec's name as a link to its place on the page, and its settings as code."""
    method = f"[{one.method}](#{one.method})" if one.method in names else one.method
    return str(replace(one, method=method, at=as_code(one.at), there=as_code(one.there)))


def as_code(settings: Mapping[str, Any]) -> dict[str, str]:
    """`key` -> value, for a page."""
    return {
        f"`{key}`": str(value).lower() if isinstance(value, bool) else f"{value}" for key, value in settings.items()
    }


def lineage(kinds: Mapping[str, str], edges: Edges) -> Figure:
    """A column for each kind; a solid arrow from a spec to what it is exactly, a dashed one to what it is nearly.

    Args:
        kinds: Kind of each spec.
        edges: What each spec reduces to.
    """
    columns = {kind: ordered([name for name in kinds if kinds[name] == kind], edges) for kind in KINDS}
    shown = {kind: names for kind, names in columns.items() if names}
    tallest = max(map(len, shown.values()))
    width, height = COLUMN * len(shown), ROW * (tallest + 2)
    places = {
        name: (COLUMN * i + NAMES, height - ROW * (row + 1.8))
        for i, names in enumerate(shown.values())
        for row, name in enumerate(names)
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set(xlim=(0, width), ylim=(0, height))
        axis.axis("off")
        for i, kind in enumerate(shown):
            axis.text(COLUMN * i + NAMES, height - ROW, KINDS[kind], fontsize=10, weight="bold", color=INK, ha="right")
        joined = {*edges_of(edges), *(b for parts in edges.values() for b in parts)}
        for name, (x, y) in places.items():
            colour = INK if name in joined else GREY
            axis.text(x - 0.09, y, name, ha="right", va="center", fontsize=8.5, color=colour)
            axis.plot([x], [y], "o", ms=3, color=colour)
        for name, others in edges.items():
            for other, exact in others.items():
                axis.add_patch(_arrow(places[name], places[other], LETTER * len(name) + 0.12, exact=exact))
        return figure


def edges_of(edges: Edges) -> list[str]:
    """Specs that reduce to some other one."""
    return [name for name, others in edges.items() if others]


def _arrow(start: tuple[float, float], end: tuple[float, float], name: float, *, exact: bool) -> FancyArrowPatch:
    """From point to point: within a column an arc at the right, to another column a curve.

    Args:
        start: Point of a spec, at the right of its name.
        end: Of what it reduces to.
        name: Width of the name, which a curve to the left must not cross.
        exact: Solid; else dashed.
    """
    (xa, ya), (xb, yb) = start, end
    style = {"arrowstyle": "-|>", "mutation_scale": 7, "shrinkA": 3, "shrinkB": 3, "lw": 0.9}
    style["linestyle"] = "solid" if exact else (0, (4, 3))
    if xa == xb:
        bend = 0.42 if yb > ya else -0.42
        return FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", color=BLUE, alpha=0.85, **style)
    begin = (xa - name, ya) if xb < xa else start
    return FancyArrowPatch(begin, end, connectionstyle="arc3,rad=0.08", color=RED, alpha=0.75, **style)


def ordered(names: Sequence[str], edges: Edges) -> list[str]:
    """Names that are joined stand near one another: each is followed by those that reduce to it."""
    inside = {name: [other for other in edges.get(name, ()) if other in names] for name in names}
    children = {name: sorted(child for child in names if name in inside[child]) for name in names}
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            order.append(name)
            for child in children[name]:
                visit(child)

    for name in sorted(names, key=lambda name: (-len(children[name]), len(inside[name]), name)):
        if not order or name not in order:
            visit(name)
    return order
