"""Numbers over their intervals on the terminal."""

from __future__ import annotations

import math

import pytest

from nashtune.evaluation.rate_table import rate_cell


@pytest.mark.parametrize(
    ("value", "low", "high", "even", "style"),
    [
        (0.7, 0.6, 0.8, 0.5, "bold green"),
        (0.3, 0.2, 0.4, 0.5, "bold red"),
        (0.6, 0.4, 0.8, 0.5, "bold"),
        (0.7, 0.6, 0.8, None, "bold"),
        (0.7, math.nan, math.nan, 0.5, "bold"),
    ],
)
def test_colour_says_on_which_side_of_even_the_whole_interval_is(
    value: float, low: float, high: float, even: float | None, style: str
) -> None:
    cell = rate_cell(value, low, high, even=even)
    assert str(cell.spans[0].style) == style
    assert cell.plain == f"{value:.3f}" + ("" if math.isnan(low) else f"\n{low:.2f}–{high:.2f}")


def test_no_number_is_a_dash() -> None:
    assert rate_cell(math.nan, math.nan, math.nan).plain == "–"
