"""The pictures of the gallery, as small SVG files with real text."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gallery_figures import Curve

BLUE, RED, GREEN, GREY, INK = "#3b6ea8", "#c0504d", "#5a9a4a", "#9a9a9a", "#333333"
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3.0) / 2.0]])
FLOOR = 1e-16
"""Gaps below are rounding."""
HEIGHT = 2.9
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nashtune",  # else the names inside of the file are new each time
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def picture(found: dict[str, Any] | None, drawn: Curve | None, kind: str) -> Figure:
    """The picture of a spec.

    Args:
        found: What `nashtune verify --json` printed.
        drawn: Loss and gradients.
        kind: "game", "bandit", "optimum" or "curve".
    """
    with matplotlib.rc_context(STYLE):
        if kind == "game" and found is not None:
            figure, axes = _panels(4.4, 3.2)
            _gaps(axes[0], found)
            (_triangle if len(found["nash"]) == 3 else _lines)(axes[1], found)
            return figure
        if kind == "bandit" and found is not None:
            figure, axes = _panels(4.6, 3.0)
            _arms(axes[0], found)
            _risks(axes[1], found)
            return figure
        assert drawn is not None
        figure, axes = _panels(*([2.9, 2.9, 2.4] if found is not None else [3.8, 3.8]))
        _curve(axes[0], drawn, drawn.loss, "Loss")
        _curve(axes[1], drawn, drawn.slope, "Gradient")
        if found is not None:
            _optimum(axes[2], found)
        return figure


def save(figure: Figure, path: Path) -> None:
    """Write an SVG without a date; coordinates have two decimals of a point, which saves a third of the size."""
    with matplotlib.rc_context(STYLE):
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), out.getvalue())
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def _panels(*widths: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(sum(widths), HEIGHT), layout="constrained", facecolor="white")
    return figure, figure.subplots(1, len(widths), width_ratios=widths)


def _gaps(axis: Any, found: dict[str, Any]) -> None:
    T = np.arange(1, found["rounds"] + 2)

    def line(values: list[float | None], **style: Any) -> None:
        points = [(t, v) for t, v in zip(T, values, strict=True) if v is not None and v > FLOOR]
        if points:
            axis.plot(*zip(*points, strict=True), **style)

    line(found["duality_gap"]["last"], color=BLUE, lw=1.0, label="last policy")
    line(found["duality_gap"]["average"], color=RED, lw=1.7, label="average policy")
    if found["regularised_gap"]["last"] is not None:
        line(found["regularised_gap"]["last"], color=GREEN, lw=1.4, label=f"last, with KL, τ = {found['tau']:g}")
    if found["bound"] is not None:
        line(found["bound"]["values"], color=GREY, lw=1.2, ls="--", label="bound of the theory")
    axis.set(xscale="log", yscale="log", xlabel="policies, the start among them")
    axis.set_title(f"Duality gap on {_games(found)}", loc="left")
    axis.legend()


def _triangle(axis: Any, found: dict[str, Any]) -> None:
    last, average = (np.array(found["policy"][which]) for which in ("last", "average"))
    target = found["nash"] if found["regularised_nash"] is None else found["regularised_nash"]
    axis.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color="0.4", lw=0.9)
    axis.plot(*(last @ CORNERS).T, color=BLUE, lw=0.8, label="last policy")
    axis.plot(*(average @ CORNERS).T, color=RED, lw=1.5, label="average policy")
    axis.plot(*(last[0] @ CORNERS), "o", color=INK, ms=4, label="start")
    axis.plot(*(np.array(target) @ CORNERS), "*", color="gold", mec=INK, mew=0.6, ms=11, label="equilibrium")
    for action, (corner, side) in enumerate(zip(CORNERS, ("right", "left", "center"), strict=True)):
        axis.annotate(f"{action}", corner, (0, 6 if action == 2 else -10), textcoords="offset points", ha=side)
    axis.set(xlim=(-0.1, 1.1), ylim=(-0.12, 1.2), aspect="equal")
    axis.set_title("Policies over three actions", loc="left")
    axis.axis("off")
    axis.legend(loc="upper left", bbox_to_anchor=(-0.1, 1.02), ncols=2, columnspacing=1.0, handlelength=1.2)


def _lines(axis: Any, found: dict[str, Any]) -> None:
    last = np.array(found["policy"]["last"])
    target = np.array(found["nash"] if found["regularised_nash"] is None else found["regularised_nash"])
    for number, action in enumerate(np.argsort(-np.maximum(last.max(axis=0), target))[:5]):
        axis.plot(last[:, action], color=f"C{number}", lw=1.0, label=f"action {action}")
        axis.plot([len(last) - 1], [target[action]], "*", color=f"C{number}", mec=INK, mew=0.4, ms=8, clip_on=False)
    axis.set(xlabel="round", ylim=(0, None))
    axis.set_title("Last policy; star: equilibrium", loc="left")
    axis.legend()


def _arms(axis: Any, found: dict[str, Any]) -> None:
    lines = [("reference", found["reference"], GREY), (found["spec"], found["policy"], RED)]
    vanilla = [one for one in found["theory"] if one["name"].startswith("vanilla KL, ")]
    lines += [("π₀ exp(R/β)", one["policy"], BLUE) for one in vanilla]
    width = 0.84 / len(lines)
    places = np.arange(len(found["reference"]))
    for i, (label, policy, colour) in enumerate(lines):
        axis.bar(places - 0.42 + width * (i + 0.5), policy, width, color=colour, label=label)
    axis.set_xticks(places, [f"{value:+.2g}" for value in found["estimate"]])
    axis.set(xlabel="estimated reward of each arm", ylim=(0, 1.3 * axis.get_ylim()[1]))
    axis.grid(axis="x", visible=False)
    axis.set_title("Probability of each arm where the loss comes to rest", loc="left")
    axis.legend(loc="upper right")


def _risks(axis: Any, found: dict[str, Any]) -> None:
    matched = [one for one in found["theory"] if one["name"] == "vanilla KL at the spec's mean KL"]
    rows = [(found["spec"], found["risk"], found["risk_standard_error"], RED)]
    rows += [("π₀ exp(R/β) at\nthe same KL", one["risk"], one["risk_standard_error"], BLUE) for one in matched]
    for place, (_, risk, error, colour) in enumerate(rows):
        axis.barh(place, risk, 0.5, xerr=error, color=colour)
        axis.annotate(f"{risk:.3f}", (risk + error, place), (4, 0), textcoords="offset points", va="center")
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axis.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.3 * max(risk for _, risk, *_ in rows)), xlabel="probability")
    axis.grid(axis="y", visible=False)
    axis.set_title("Risk to end below the reference", loc="left")


def _curve(axis: Any, drawn: Curve, lines: dict[str, list[float]], title: str) -> None:
    for colour, (label, values) in zip((BLUE, RED, GREEN), lines.items(), strict=False):
        axis.plot(drawn.x, values, color=colour, lw=1.6, label=label)
    axis.axhline(0, color=GREY, lw=0.7)
    axis.axvline(0, color=GREY, lw=0.7)
    axis.set(xlabel=drawn.label, xlim=(drawn.x[0], drawn.x[-1]))
    axis.set_title(title, loc="left")
    if len(lines) > 1:
        axis.legend()


def _optimum(axis: Any, found: dict[str, Any]) -> None:
    policies = found["policy"]["last"]
    places = np.arange(len(policies[0]))
    axis.bar(places - 0.21, policies[0], 0.4, color=GREY, label="start")
    axis.bar(places + 0.21, policies[-1], 0.4, color=RED, label="minimiser of the loss")
    for place, value in zip(places, policies[-1], strict=True):
        axis.annotate(f"{value:.2g}", (place + 0.21, value), (0, 2), textcoords="offset points", ha="center", size=7.5)
    axis.set_xticks(places, ["best", *[""] * (len(places) - 2), "worst"])
    axis.set(ylim=(0, 1.35))
    axis.set_yticks([0, 0.5, 1])
    axis.grid(axis="x", visible=False)
    axis.set_title("Optimum on a small table", loc="left")
    axis.legend(loc="upper right")


def _games(found: dict[str, Any]) -> str:
    return found["game"] if isinstance(found["game"], str) else ", ".join(found["game"])
