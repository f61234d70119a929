"""The picture of a run on games: duality gaps with their bound, and where the policies went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nashtune.games.matrices import Array
from nashtune.games.report import Report

FLOOR = 1e-16
"""Gaps below are rounding and are left out of the logarithmic axis."""
MOST_PANELS = 3
MOST_LINES = 8
BLUE, RED, GREEN, GREY = "#3b6ea8", "#c0504d", "#5a9a4a", "#7f7f7f"
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3.0) / 2.0]])


def draw(report: Report, path: Path) -> None:
    """Save the picture as a PNG.

    Args:
        report: What was measured.
        path: File to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = min(MOST_PANELS, len(report.games))
    figure, axes = pyplot.subplots(
        1, 1 + shown, figsize=(5.6 + 4.6 * shown, 4.4), layout="constrained", width_ratios=[1.25, *[1.0] * shown]
    )
    _gaps(axes[0], report)
    for axis, number in zip(axes[1:], range(shown), strict=True):
        game = report.games[number]
        target = report.nash[number] if report.regularised_nash is None else report.regularised_nash[number]
        label = "Nash policy" if report.regularised_nash is None else "regularised Nash policy"
        panel = _triangle if game.size == 3 else _lines
        panel(axis, report.last[number], report.average[number], target, label)
        axis.set_title(game.name)
    rounds = f"{report.rounds} round" + ("s" if report.rounds != 1 else "")
    figure.suptitle(f"{report.spec}: {rounds} on {', '.join(game.name for game in report.games)}")
    partial = path.with_name(f".{path.name}.partial.png")
    figure.savefig(partial, dpi=130)
    pyplot.close(figure)
    partial.replace(path)


def _gaps(axis: Any, report: Report) -> None:
    T = np.arange(1, report.rounds + 2)
    many = report.rounds > 10
    marker = "" if many else "o"

    def line(values: Sequence[float | None], **style: Any) -> None:
        points = [(t, v) for t, v in zip(T, values, strict=True) if v is not None and v > FLOOR]
        if points:
            axis.plot(*zip(*points, strict=True), **style)

    line(report.gap_last, color=BLUE, lw=1.1, marker=marker, label="last policy")
    line(report.gap_average, color=RED, lw=1.8, marker=marker, label="average policy")
    if report.regularised is not None:
        line(report.regularised, color=GREEN, lw=1.4, marker=marker, label=f"last, regularised (τ = {report.tau:g})")
    if report.bound is not None:
        line(report.bound[1], color=GREY, lw=1.2, ls="--", label=f"bound {report.bound[0]}")
    axis.set(yscale="log", xlabel="policies T, the start policy among them", ylabel="duality gap")
    if many:
        axis.set_xscale("log")
    else:
        axis.set_xticks(T)
    axis.set_title("Duality gap" + (f" (average: slope {report.rate:.2f})" if report.rate is not None else ""))
    axis.grid(alpha=0.25, which="major")
    axis.legend(fontsize=8, frameon=False)


def _triangle(axis: Any, last: Array, average: Array, target: Array, label: str) -> None:
    """Three actions: the simplex, with both paths in it."""
    axis.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color="0.3", lw=0.9)
    axis.plot(*(last @ CORNERS).T, color=BLUE, lw=0.8, alpha=0.8, label="last policy")
    axis.plot(*(average @ CORNERS).T, color=RED, lw=1.6, label="average policy")
    axis.plot(*(last[0] @ CORNERS), "o", color="0.2", ms=5, label="start")
    axis.plot(*(last[-1] @ CORNERS), "o", color=BLUE, ms=5)
    axis.plot(*(target @ CORNERS), "*", color="gold", mec="0.2", mew=0.7, ms=13, label=label)
    for action, (corner, shift, side) in enumerate(
        zip(CORNERS, ((-0.02, -0.05), (0.02, -0.05), (0.0, 0.03)), ("right", "left", "center"), strict=True)
    ):
        axis.text(*(corner + shift), f"action {action}", ha=side, va="center", fontsize=8)
    axis.set(xlim=(-0.18, 1.18), ylim=(-0.12, 0.98), aspect="equal")
    axis.axis("off")
    axis.legend(fontsize=7, frameon=False, loc="upper right", bbox_to_anchor=(1.06, 1.0))


def _lines(axis: Any, last: Array, average: Array, target: Array, label: str) -> None:
    """Other sizes: the most played actions of the last policy over the rounds, the target at the right."""
    rounds = np.arange(len(last))
    order = np.argsort(-np.maximum(last.max(axis=0), target))[:MOST_LINES]
    for number, action in enumerate(order):
        colour = f"C{number}"
        axis.plot(rounds, last[:, action], color=colour, lw=0.9, label=f"action {action}")
        axis.plot(rounds, average[:, action], color=colour, lw=1.6, ls=":")
        axis.plot([rounds[-1]], [target[action]], marker=(5, 1), color=colour, mec="0.2", mew=0.5, ms=9, clip_on=False)
    axis.set(xlabel="round", ylabel="probability (dotted: average policy)", ylim=(0.0, None))
    axis.grid(alpha=0.25)
    beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axis.legend(fontsize=7, frameon=False, title=f"star: {label}", title_fontsize=7, **beside)
