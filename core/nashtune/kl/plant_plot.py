"""The picture of controllers on the test bench: KL divergence and β over the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nashtune.files import atomic_path
from nashtune.kl.plant import Plant
from nashtune.kl.plant_trace import BAND, Trace

COLOURS = ("#3b6ea8", "#c0504d", "#5a9a4a", "#8064a2", "#d08a2e", "#4aa3a3")
MOST = len(COLOURS)
"""Traces that a picture can tell apart."""


def draw(traces: Sequence[Trace], plant: Plant, path: Path, title: str) -> None:
    """Save the picture as a PNG.

    Args:
        traces: Runs on the same plant, at most `MOST`.
        plant: The plant.
        path: File to write.
        title: Of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(9.0, 6.2), sharex=True, layout="constrained")
    for trace, colour in zip(traces, COLOURS, strict=False):
        rounds = range(1, len(trace.kl) + 1)
        upper.plot(rounds, trace.measured, color=colour, lw=0.7, alpha=0.35)
        upper.plot(rounds, trace.kl, color=colour, lw=1.8, label=trace.name)
        lower.plot(rounds, trace.beta, color=colour, lw=1.8, label=trace.name)
    for setpoint in sorted({trace.setpoint for trace in traces if trace.setpoint is not None}):
        upper.axhline(setpoint, color="0.35", lw=1.0, ls="--")
        upper.axhspan(setpoint * (1.0 - BAND), setpoint * (1.0 + BAND), color="0.5", alpha=0.12, lw=0)
    lower.axhline(plant.beta_rest, color="0.35", lw=1.0, ls="--")
    upper.set(ylabel="KL, nats per completion", ylim=(0.0, None))
    lower.set(ylabel="mean β", xlabel="round", yscale="log")
    plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    lower.yaxis.set_major_formatter(plain)
    lower.yaxis.set_minor_formatter(plain)
    upper.set_title("bold: the plant's KL; thin: as measured; band: a tenth of the target", fontsize=9)
    lower.set_title(f"dashed: the β at which the plant rests at {plant.kl_rest:g} nats", fontsize=9)
    for axis in (upper, lower):
        axis.grid(alpha=0.25)
    upper.legend(fontsize=8, frameon=False)
    figure.suptitle(title)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130, format="png")
    pyplot.close(figure)
