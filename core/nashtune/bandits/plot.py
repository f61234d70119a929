"""The picture of a spec on a bandit: policies by arm, and how the gain is distributed over draws of the noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nashtune.bandits.report import BanditReport, Line
from nashtune.files import atomic_path

MOST_PROMPTS = 3
MOST_ARMS = 24
BINS = 80
GREY, BLACK = "#b5b5b5", "#222222"
COLOURS = ("#c0504d", "#3b6ea8", "#5a9a4a", "#8064a2")


def draw(report: BanditReport, path: Path) -> None:
    """Save the picture as a PNG.

    Args:
        report: What was found.
        path: File to write.
    """
    from matplotlib.figure import Figure

    shown = min(MOST_PROMPTS, len(report.prompts))
    figure = Figure(figsize=(5.4 * shown + 5.6, 4.6), layout="constrained", facecolor="white")
    axes = figure.subplots(1, shown + 1, width_ratios=[*[1.1] * shown, 1.0])
    lines = [report.spec_line, *report.theory]
    for number, axis in enumerate(axes[:-1]):
        _policies(axis, report, lines, number)
    _gains(axes[-1], report, lines)
    noise = f"{report.spec_line.risk.draws} draws of the noise" if report.spec_line.risk.draws > 1 else "no noise"
    figure.suptitle(f"{report.spec} on {report.prompts[0].name.partition('[')[0]}: {noise}")
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _policies(axis: Any, report: BanditReport, lines: list[Line], number: int) -> None:
    arms = report.prompts[number]
    size = min(arms.size, MOST_ARMS)
    places = np.arange(size)
    width = 0.84 / (len(lines) + 1)
    axis.bar(places - 0.42 + width / 2, arms.reference[:size], width, color=GREY, label="reference")
    for i, line in enumerate(lines, start=1):
        colour = COLOURS[i - 1]
        axis.bar(places - 0.42 + width * (i + 0.5), line.policy[number][:size], width, color=colour, label=_label(line))
    ticks = [f"{y}\n{arms.gold[y]:+.2g}" + (f"\n±{arms.sigma[y]:.2g}" if size <= 12 else "") for y in places]
    axis.set_xticks(places, ticks, fontsize=8)
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])  # room for the legend
    axis.set(ylabel="probability", xlabel="arm, true reward" + (", noise" if size <= 12 else ""))
    left_out = f" (arms 0 to {size - 1} of {arms.size})" if arms.size > size else ""
    axis.set_title(f"Policies on the estimate: {arms.name}{left_out}", fontsize=10)
    axis.grid(axis="y", alpha=0.25)
    axis.set_axisbelow(True)
    axis.legend(fontsize=7.5, frameon=False)


def _gains(axis: Any, report: BanditReport, lines: list[Line]) -> None:
    if report.spec_line.risk.draws == 1:
        for i, line in enumerate(lines):
            axis.axvline(line.gains[0], color=COLOURS[i], lw=1.8, label=line.name)
    else:
        ends = np.quantile(np.concatenate([line.gains for line in lines]), [0.001, 0.999])
        # where a policy hardly moves, all gains are alike, and a histogram needs some width
        pad = max(1e-9, 0.02 * float(ends[1] - ends[0]))
        edges = np.linspace(min(ends[0], 0.0) - pad, max(ends[1], 0.0) + pad, BINS + 1)
        for i, line in enumerate(lines):
            share = np.full(len(line.gains), 100.0 / len(line.gains))
            error = line.risk.standard_error
            axis.hist(
                np.clip(line.gains, edges[0], edges[-1]),
                bins=edges,
                weights=share,
                histtype="stepfilled" if i == 0 else "step",
                color=COLOURS[i],
                alpha=0.45 if i == 0 else 1.0,
                lw=1.4,
                label=f"{_short(line)}: risk {line.risk.value:.4f} ± {error:.4f}",
            )
    axis.axvline(0.0, color=BLACK, lw=1.0, ls="--")
    axis.set(xlabel="gain of true reward over the reference", ylabel="% of draws per bin")
    axis.set_title("Risk: the share left of 0", fontsize=10)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7.5, frameon=False, loc="upper left")
    axis.set_ylim(top=1.35 * axis.get_ylim()[1])  # room for the legend


def _label(line: Line) -> str:
    kl = f"KL {float(line.kl.mean()):.3g}"
    return f"{_short(line)} ({kl})" if line.beta is None else f"{_short(line)} (β {line.beta:.3g}, {kl})"


def _short(line: Line) -> str:
    return line.name.partition(",")[0]
