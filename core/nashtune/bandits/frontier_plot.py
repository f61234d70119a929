"""The picture of overoptimisation: gold and proxy against sqrt KL, and against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nashtune.bandits.frontier import Frontier
from nashtune.files import atomic_path

COLOURS = ("#c0504d", "#3b6ea8", "#5a9a4a", "#8064a2", "#c98a2b")


def draw(found: Frontier, path: Path) -> None:
    """Save the picture as a PNG.

    Args:
        found: The curves.
        path: File to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.2, 5.0), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1.0])
    _against_kl(left, found)
    for curve, colour in zip(found.curves, COLOURS, strict=False):
        right.plot(curve.proxy, curve.gold, color=colour, lw=1.5, marker="o", ms=3.5, label=curve.name)
        right.plot(curve.proxy[curve.best], curve.gold[curve.best], "*", color=colour, mec="0.2", mew=0.6, ms=13)
    ends = [min(right.get_xlim()[0], right.get_ylim()[0]), right.get_ylim()[1]]
    right.plot(ends, ends, color="0.6", lw=1.0, ls=":", label="proxy = gold")
    right.set(xlabel="proxy (what best-of-n maximises)", ylabel="gold (true reward)")
    right.set_title("Proxy against gold", fontsize=10.5)
    right.grid(alpha=0.25)
    right.legend(fontsize=8, frameon=False, loc="lower right")
    kind = "exact" if found.exact else "estimated from samples"
    figure.suptitle(f"Best-of-n on {found.name}, {kind}: gold solid, proxy dashed, star at the largest gold")
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _against_kl(axis: Any, found: Frontier) -> None:
    for curve, colour in zip(found.curves, COLOURS, strict=False):
        d = np.sqrt(curve.kl)
        axis.plot(d, curve.gold, color=colour, lw=1.8, marker="o", ms=3.5, label=curve.name)
        axis.plot(d, curve.proxy, color=colour, lw=1.2, ls="--", alpha=0.8)
        axis.plot(d[curve.best], curve.gold[curve.best], "*", color=colour, mec="0.2", mew=0.6, ms=13)
        if curve.law is not None:
            fine = np.linspace(0.0, float(d.max()), 200)
            start = curve.gold[0] if found.ns[0] == 1 else np.nan
            axis.plot(fine, start + curve.law(fine), color=colour, lw=0.8, ls=":")
    axis.set(xlabel="√KL(best of n ‖ policy), in √nats", ylabel="reward")
    axis.set_title("Gold and proxy (dotted: fit of gold, d (α − β d))", fontsize=10.5, pad=26)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    # one proxy that runs away must not press all gold curves together
    top = 1.9 * max(float(curve.gold.max()) for curve in found.curves)
    if axis.get_ylim()[1] > top > 0:
        axis.set_ylim(top=top)
        highest = max(found.curves, key=lambda curve: float(curve.proxy.max()))
        leaves = f"proxy of {highest.name} goes on to {float(highest.proxy.max()):.3g}"
        axis.text(0.99, 0.985, leaves, transform=axis.transAxes, ha="right", va="top", fontsize=8)
    if found.kl is None:  # one n lies at another place on each curve
        return
    d = np.sqrt(found.kl)
    above = axis.secondary_xaxis("top")
    few = [i for i in range(len(d)) if i % max(1, len(d) // 8) == 0]
    above.set_xticks(d[few], [str(found.ns[i]) for i in few], fontsize=8)
    above.set_xlabel("n", fontsize=8, labelpad=1)
