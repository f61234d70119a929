"""A picture of what a perplexity filter has found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nashtune.files import atomic_path

COLOURS = {"chosen": "#4c72b0", "rejected": "#c44e52", "own samples": "#222222"}
OTHERS = ("#55a868", "#8172b2", "#ccb974")


def draw(report: Mapping[str, Any], path: Path, *, title: str) -> None:
    """Histograms of perplexity with the limit, and the share of rows kept by source, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shares = report["by_source"] or {Path(name).name: part for name, part in report["by_file"].items()}
    shown = dict(sorted(shares.items(), key=lambda item: -item[1]["rows"])[:12])
    figure = Figure(figsize=(11, 4.2), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), facecolor="white")
    figure.suptitle(title, fontsize=12)
    left, right = figure.subplots(1, 2, width_ratios=[2.2, 1])
    edges = report["histograms"]["edges"]
    others = iter(OTHERS)
    for name, counts in report["histograms"]["counts"].items():
        label = "own samples" if name == "own" else name
        total = sum(counts) or 1
        colour = COLOURS.get(label) or next(others, "#777777")
        left.stairs([count / total for count in counts], edges, label=f"{label} ({total})", color=colour, linewidth=1.6)
    for limit in report["limits"]:
        for value in (limit["low"], limit["high"]):
            if value and edges[0] * 0.5 < value < edges[-1] * 2:
                left.axvline(value, color="#222222", linestyle="--", linewidth=1)
                what = "" if limit["tokens"] == "all" else f" ({limit['tokens']} tokens)"
                left.annotate(
                    f"limit {value:.3g}{what}",
                    (value, 0.98),
                    xycoords=("data", "axes fraction"),
                    rotation=90,
                    va="top",
                    ha="right",
                    fontsize=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                )
    left.set_xscale("log")
    left.set_xticks(ticks := _ticks(edges[0], edges[-1]), labels=[f"{value:.4g}" for value in ticks])
    left.minorticks_off()
    left.set_ylim(bottom=0)
    left.set_xlabel("perplexity of the answer under the model to be trained")
    left.set_ylabel("share of answers")
    left.legend(frameon=False, fontsize=9)
    names = list(shown)[::-1]
    right.barh(names, [shown[name]["share"] for name in names], color="#8c9db5")
    for place, name in enumerate(names):
        part = shown[name]
        right.text(0.02, place, f"{part['kept']} of {part['rows']}", va="center", fontsize=8)
    right.set_xlim(0, 1)
    right.set_ylim(-0.5, max(4, len(names)) - 0.5)  # one bar alone would fill the picture
    right.set_xlabel("share of rows kept")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _ticks(low: float, high: float) -> list[float]:
    """Places of labels on a logarithmic axis: 1, 2, 5, 10, ... where that gives three, else five at equal steps."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_ones = [value for k in decades for m in (1, 2, 5) if low <= (value := m * 10.0**k) <= high]
    return round_ones if len(round_ones) >= 3 else [low + i * (high - low) / 4 for i in range(5)]
