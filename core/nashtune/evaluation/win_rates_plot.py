"""Pictures of a game: who beats whom, and what the same spec does on a game that is solved exactly."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nashtune.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nashtune.evaluation.win_rates import WinRates

_TEXT, _MUTED, _LAST, _AVERAGE = "#222222", "#707070", "#c44e52", "#4c72b0"
_ZERO = 1e-16
"""Gaps below float64's resolution of probabilities are drawn here: a log axis has no zero."""


def draw_win_rates(win_rates: WinRates, path: Path, *, title: str) -> None:
    """The matrix of win rates with its intervals, as a PNG."""
    width = _matrix_width(win_rates)
    figure = _figure(title, width, _height(win_rates))
    _draw_matrix(figure.subplots(), win_rates, width)
    _save(figure, path)


def draw_game(
    win_rates: WinRates, verified: Mapping[str, Any] | None, path: Path, *, title: str, changed: str = ""
) -> None:
    """The language model's game on the left, the exact one on the right, as a PNG.

    Args:
        win_rates: What the run measured.
        verified: What `nashtune verify --json` prints for the same spec, of which `game`, `duality_gap`,
            `regularised_gap` and `bound` are drawn; index 0 is the policy before training. None draws the win rates
            alone.
        path: Of the PNG.
        title: Above both.
        changed: Settings of the exact game that the run did not have, "loss.eta 0.5"; named above it.
    """
    if verified is None:
        draw_win_rates(win_rates, path, title=title)
        return
    width = _matrix_width(win_rates)
    figure = _figure(title, width + 6.0, _height(win_rates))
    left, right = figure.subplots(1, 2, width_ratios=[width, 6.0])
    _draw_matrix(left, win_rates, width)
    _draw_gaps(right, verified, changed)
    _save(figure, path)


def _figure(title: str, width: float, height: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.04)
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    figure.suptitle(title, fontsize=12.5, color=_TEXT)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _matrix_width(win_rates: WinRates) -> float:
    return min(12.0, max(6.0, 1.5 + 0.9 * (len(win_rates.policies) + 1)))


def _height(win_rates: WinRates) -> float:
    return min(9.0, max(4.6, 1.9 + 0.62 * len(win_rates.policies)))


def _draw_matrix(axis: Axes, win_rates: WinRates, width: float) -> None:
    """Row beats column; the last column, set apart, is the mean over all others."""
    names, m = win_rates.policies, len(win_rates.policies)
    gap = 0.12
    size = max(7.5, 13.5 - 0.6 * m)
    shown = np.ma.masked_where(np.eye(m, dtype=bool) | np.isnan(win_rates.rates), win_rates.rates)
    colours: Any = {"cmap": "RdBu", "vmin": 0.15, "vmax": 0.85, "alpha": 0.7, "aspect": "auto"}  # pale: numbers on it
    axis.imshow(shown, extent=(-0.5, m - 0.5, m - 0.5, -0.5), **colours)
    axis.imshow(win_rates.average[:, None], extent=(m - 0.5 + gap, m + 0.5 + gap, m - 0.5, -0.5), **colours)
    cells: list[tuple[float, float, float, float, float]] = [
        (j, i, win_rates.rates[i, j], win_rates.low[i, j], win_rates.high[i, j])
        for i in range(m)
        for j in range(m)
        if i != j
    ]
    ends = zip(win_rates.average, win_rates.average_low, win_rates.average_high, strict=True)
    cells += [(m + gap, i, *values) for i, values in enumerate(ends)]
    points: Any = {"textcoords": "offset points", "ha": "center", "color": _TEXT}
    for x, y, rate, low, high in cells:
        if math.isnan(rate):
            continue
        weight = "bold" if low > 0.5 or high < 0.5 else "normal"
        axis.annotate(f"{rate:.2f}", (x, y), (0, -0.1 * size), va="bottom", fontsize=size, weight=weight, **points)
        axis.annotate(
            f"{low:.2f}–{high:.2f}", (x, y), (0, -0.35 * size), va="top", fontsize=max(6.5, 0.7 * size), **points
        )
    for i in range(m):
        axis.text(i, i, "–", ha="center", va="center", fontsize=size, color=_MUTED)
    axis.hlines([k - 0.5 for k in range(1, m)], -0.5, m + 0.5 + gap, colors="white", lw=2)
    axis.vlines([k - 0.5 for k in range(1, m)], -0.5, m - 0.5, colors="white", lw=2)
    axis.set(xlim=(-0.5, m + 0.5 + gap), ylim=(m - 0.5, -0.5), facecolor="#f4f4f4")
    axis.axvspan(m - 0.5, m - 0.5 + gap, color="white")
    axis.set_xticks([*range(m), m + gap], [*names, "all others"])
    axis.set_yticks(range(m), names)
    axis.tick_params(length=0, labelsize=max(8.0, 10.5 - 0.25 * m), labelcolor=_TEXT)
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.set_title("Win rate of row over column", fontsize=11, color=_TEXT, pad=8)
    note = textwrap.fill(win_rates.footnote(), int(14.5 * width))
    axis.set_xlabel(note, fontsize=8, color=_MUTED, labelpad=8)


def _draw_gaps(axis: Axes, verified: Mapping[str, Any], changed: str) -> None:
    """Duality gaps over rounds, logarithmic; a gap is at most 1, so a bound above that is left out of sight."""
    from matplotlib.ticker import MaxNLocator

    gaps = verified["duality_gap"]
    bound = verified["bound"] or {"formula": "", "values": []}
    game = verified["game"] if isinstance(verified["game"], str) else ", ".join(verified["game"])
    curves: list[tuple[str, Sequence[float | None] | None, dict[str, Any]]] = [
        ("last policy", gaps["last"], {"color": _LAST, "lw": 1.8}),
        ("average policy", gaps["average"], {"color": _AVERAGE, "lw": 1.8}),
        ("last policy, regularised gap", verified["regularised_gap"]["last"], {"color": _LAST, "lw": 1.2, "ls": "--"}),
        (f"average policy, bound {bound['formula']}", bound["values"], {"color": _MUTED, "lw": 1.2, "ls": ":"}),
    ]
    for label, values, style in curves:
        points = [(t, max(value, _ZERO)) for t, value in enumerate(values or []) if value is not None]
        if not points:
            continue
        if min(value for _, value in points) > 1:
            label += " (above 1 so far)"
        if len(points) <= 25:
            style |= {"marker": "o", "ms": 3.5}
        axis.plot([t for t, _ in points], [value for _, value in points], label=label, **style)
    axis.set_yscale("log")
    bottom, top = axis.get_ylim()
    axis.set_ylim(min(bottom, 0.05), min(top, 1.15))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("round (0: before training)", color=_TEXT)
    axis.set_ylabel("duality gap (0 at the Nash policy)", color=_TEXT)
    what = f"The same spec with {changed}" if changed else "The same spec"
    axis.set_title(f"{what}, solved exactly on the game '{game}'", fontsize=11, color=_TEXT, pad=8)
    axis.grid(alpha=0.25, which="both", lw=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False)
