"""A matrix of win rates as a table whose cells are coloured: figure and values in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nashtune.html.words import fixed, interval

STRONGEST = 0.4  # distance from 1/2 at which a cell has its full colour


@dataclass(frozen=True)
class Cell:
    """One win rate.

    Args:
        text: The rate.
        ends: Its interval.
        side: "win", "loss" or "none": on which side of 1/2 it is.
        strength: Of the colour, percent.
        sure: Whether its interval leaves 1/2 out.
        title: What pointing at it tells.
    """

    text: str
    ends: str = ""
    side: str = "none"
    strength: int = 0
    sure: bool = False
    title: str = ""


@dataclass(frozen=True)
class Matrix:
    """Row beats column.

    Args:
        name: Letters, digits and hyphens.
        title: Above it.
        about: How to read it.
        names: Of rows and columns.
        cells: One row of cells for each name; after the columns of `names` those of `more`.
        more: Names of further columns, set apart.
        note: Below it.
    """

    name: str
    title: str
    about: str
    names: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    more: Sequence[str] = ()
    note: str = ""


def rate_cell(
    rate: float | None, low: float | None, high: float | None, told: str, missing: str = "nothing was judged"
) -> Cell:
    """A win rate in its colour.

    Args:
        rate: In [0, 1]; None or NaN where nothing was judged.
        low: Lower end of its interval.
        high: Upper end.
        told: Whose it is: "a over b".
        missing: Why there is none, where there is none.
    """
    if rate is None or math.isnan(rate):
        return Cell("–", title=f"{told}: {missing}")
    ends = interval(low, high)
    sure = low is not None and high is not None and (low > 0.5 or high < 0.5)
    side = "win" if rate > 0.5 else "loss" if rate < 0.5 else "none"
    strength = round(100 * min(1.0, abs(rate - 0.5) / STRONGEST))
    title = f"{told}: {fixed(rate, 3)}{f' ({interval(low, high, 3)})' if ends else ''}"
    return Cell(fixed(rate, 2), ends, side, strength, sure, title)


DIAGONAL = Cell("·")
