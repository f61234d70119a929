"""Win rates with their intervals on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Interval = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Values, lower and upper ends, of one shape."""


def rate_cell(value: float, low: float, high: float, *, even: float | None = 0.5, digits: int = 3) -> Text:
    """A number over its interval, green or red where the interval excludes `even`.

    Args:
        value: NaN for a dash.
        low: Lower end; NaN for no interval.
        high: Upper end.
        even: What is neither good nor bad; None for no colour.
        digits: After the point; an interval has one less.
    """
    from rich.text import Text

    if np.isnan(value):
        return Text("–", style="dim")
    style = "" if even is None else "green" if low > even else "red" if high < even else ""  # NaN compares false
    ends = "" if np.isnan(low) else f"\n{_ends(low, high, max(0, digits - 1))}"
    return Text.assemble((f"{value:.{digits}f}", f"bold {style}".strip()), (ends, "dim"))


def matrix_table(policies: Sequence[str], rates: Interval, average: Interval, *, caption: str | Text) -> Table:
    """Every policy against every other, and against all others.

    Args:
        policies: Names (M).
        rates: Win rate of row over column (M, M).
        average: Mean win rate over all others (M,).
        caption: Below.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table("row beats", title="win rates", caption=caption, caption_justify="left", show_lines=True)
    for name in (*policies, "all others"):
        table.add_column(Text(name), justify="center")
    for i, name in enumerate(policies):
        cells = [
            Text("–", style="dim") if i == j else rate_cell(*(float(part[i, j]) for part in rates))
            for j in range(len(policies))
        ]
        table.add_row(Text(name, style="bold"), *cells, rate_cell(*(float(part[i]) for part in average)))
    return table


def _ends(low: float, high: float, digits: int) -> str:
    return f"{low:.{digits}f}–{high:.{digits}f}"
