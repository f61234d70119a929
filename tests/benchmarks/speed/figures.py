"""docs/results/speed.png, from the results alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speed.cases import MEMORY_TARGETS, SKIP, SPEED_TARGETS, TRL, shape_of

OURS, OTHER, LINE = "#3f51b5", "#9fa8da", "#c62828"


def draw(results: dict[str, Any], file: Path) -> None:
    """Ratios to TRL with what is required, and how costs grow."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels: list[Any] = []
    if results["cases"]:
        panels += [_speed, _memory]
    if results.get("profile"):
        panels += [_profile]
    axes = list(dict.fromkeys(point["axis"] for point in results.get("scaling") or []))
    panels += [lambda ax, given, axis=axis: _growth(ax, given, axis) for axis in axes]
    if results.get("rows"):
        panels += [lambda ax, given: _rows(ax, given, "start", "seconds to the first step")]
        panels += [lambda ax, given: _rows(ax, given, "peak_mb", "peak memory, MB")]
    columns = min(3, max(1, len(panels)))
    height = -(-max(1, len(panels)) // columns)
    figure, grid = plt.subplots(height, columns, figsize=(5.2 * columns, 3.4 * height), squeeze=False)
    flat = list(grid.flat)
    for panel, ax in zip(panels, flat, strict=False):
        panel(ax, results)
    for ax in flat[len(panels) :]:
        ax.axis("off")
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _bars(ax: Any, results: dict[str, Any], figure: str, target: Any) -> None:
    names, values, colours, limits = [], [], [], []
    for case, entry in results["cases"].items():
        for peer, ratios in entry["summary"]["ratios"].items():
            names.append(case if peer == TRL else f"{case}, {'skip' if peer == SKIP else 'oneDNN'}")
            values.append(ratios[figure]["of_medians"])
            colours.append(OURS if peer == TRL else OTHER)
            limits.append(target(case, peer))
    places = list(range(len(names)))[::-1]
    ax.barh(places, values, color=colours)
    for place, value, limit in zip(places, values, limits, strict=True):
        ax.text(value, place, f" {value:.2f}", va="center", fontsize=8)
        if limit is not None:
            ax.plot([limit, limit], [place - 0.4, place + 0.4], color=LINE)
    ax.set_yticks(places, names, fontsize=8)
    ax.margins(x=0.18)
    ax.axvline(1, color="grey", linewidth=0.8)


def _speed(ax: Any, results: dict[str, Any]) -> None:
    _bars(ax, results, "tokens_per_second", lambda case, peer: SPEED_TARGETS.get((case, peer)))
    ax.set_title(
        "real tokens/s, nashtune / TRL\n(red: required; skip: masked positions skipped; oneDNN: on both sides)",
        fontsize=9,
    )


def _memory(ax: Any, results: dict[str, Any]) -> None:
    _bars(ax, results, "peak_mb", lambda case, peer: MEMORY_TARGETS.get(shape_of(case)) if peer == TRL else None)
    ax.set_title("peak memory, nashtune / TRL\n(red: required)", fontsize=9)


def _profile(ax: Any, results: dict[str, Any]) -> None:
    cases = results["profile"]
    parts = sorted(cases[0]["shares"], key=lambda part: cases[0]["shares"][part])
    height = 0.8 / len(cases)
    for number, (one, colour) in enumerate(zip(cases, (OURS, OTHER), strict=False)):
        places = [place - height * number for place in range(len(parts))]
        ax.barh(places, [100 * one["shares"][part] for part in parts], height, color=colour, label=one["case"])
    ax.set_yticks([place - 0.2 for place in range(len(parts))], parts, fontsize=7)
    ax.set_title("where the time of a step goes, %", fontsize=9)
    ax.legend(fontsize=8, loc="lower right")


def _growth(ax: Any, results: dict[str, Any], axis: str) -> None:
    points = [point for point in results["scaling"] if point["axis"] == axis]
    for engine in dict.fromkeys(point["engine"] for point in points):
        of = [point for point in points if point["engine"] == engine]
        colour = OTHER if engine == "dense" else OURS
        ax.plot([p["value"] for p in of], [p["cpu"] for p in of], marker="o", label=engine, color=colour)
    ax.set_ylim(0, 1.15 * max(point["cpu"] for point in points))
    ax.set_xlabel(axis, fontsize=9)
    ax.set_title("CPU seconds of a pass", fontsize=9)
    ax.legend(fontsize=8, loc="lower right")


def _rows(ax: Any, results: dict[str, Any], figure: str, title: str) -> None:
    for name, colour, style in (("first", OURS, "--"), ("second", OURS, "-"), (TRL, OTHER, "-")):
        of = [(one["rows"], one[name][figure]) for one in results["rows"] if name in one]
        if of:
            label = TRL if name == TRL else f"nashtune, {name} start"
            ax.plot(*zip(*of, strict=True), style, marker="o", label=label, color=colour)
    ax.set_xscale("log")
    ax.set_ylim(0, 1.2 * max(one[name][figure] for one in results["rows"] for name in one if name in ("first", TRL)))
    ax.set_xlabel("rows", fontsize=9)
    ax.set_title(title, fontsize=9)
    ax.legend(fontsize=8, loc="lower right")
