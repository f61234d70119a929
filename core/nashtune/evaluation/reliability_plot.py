"""A picture of what a reward model claims and what is so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nashtune.files import atomic_path

_TEXT, _MUTED, _POINTS, _BARS = "#222222", "#707070", "#4c72b0", "#c9d3e6"


def draw_reliability(calibration: Mapping[str, Any], path: Path, *, title: str) -> None:
    """The reliability diagram over the number of pairs in each bin, as a PNG.

    Args:
        calibration: `ece`, `log_loss` and `bins`, as `reward_report.calibration` gives them.
        path: Of the PNG.
        title: Above it.
    """
    from matplotlib.figure import Figure

    bins = calibration["bins"]
    figure = Figure(figsize=(6.4, 6.0), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11.5, color=_TEXT)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
    above.plot([0.5, 1.0], [0.5, 1.0], color=_MUTED, lw=1.0, ls="--", label="claimed = right")
    claimed, right = [one["claimed"] for one in bins], [one["right"] for one in bins]
    errors = [math.sqrt(one["right"] * (1 - one["right"]) / one["pairs"]) for one in bins]
    above.errorbar(
        claimed, right, yerr=errors, color=_POINTS, marker="o", ms=5, lw=1.6, capsize=3, label="± binomial error"
    )
    low = min([0.5, *(value - error for value, error in zip(right, errors, strict=True))])
    above.set(xlim=(0.49, 1.01), ylim=(max(-0.02, low - 0.05), 1.03))
    above.set_ylabel("share in which it is right", color=_TEXT)
    above.set_title(
        f"ECE {calibration['ece']:.3f}, log loss {calibration['log_loss']:.3f} (a coin: {math.log(2):.3f})",
        fontsize=9.5,
        color=_MUTED,
    )
    above.legend(fontsize=9, frameon=False, loc="upper left")
    widths = [one["to"] - one["from"] for one in bins]
    bars = below.bar(
        [one["from"] for one in bins], [one["pairs"] for one in bins], widths, align="edge", color=_BARS, ec="white"
    )
    below.bar_label(bars, fontsize=8, color=_MUTED, padding=1)
    below.margins(y=0.25)
    below.set_ylabel("pairs", color=_TEXT)
    below.set_xlabel("claimed probability of the answer it prefers", color=_TEXT)
    for axis in (above, below):
        axis.grid(alpha=0.25, lw=0.5)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130, format="png")
