"""Curves of one run over its optimiser steps, and how reliable a reward model is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nashtune.evaluation.curves import REWARD, Kind, Panel, panels_of
from nashtune.evaluation.report import Metrics
from nashtune.html.drawing import Figure
from nashtune.html.lines import Series, line_figure
from nashtune.html.plane import Plane, Point
from nashtune.html.run_files import Run
from nashtune.html.scatter import scatter_figure
from nashtune.html.words import fixed, number

STEP = "optimiser step"
MORE: dict[Kind, list[Panel]] = {
    "preferences": [
        Panel(
            "Implicit rewards",
            REWARD,
            {"train/reward_chosen": "chosen", "train/reward_rejected": "rejected"},
        ),
        Panel("KL along held-out answers", "nats", {"val/kl_to_reference": ""}),
    ],
    "scores": [],
    "rollouts": [],
}
"""Panels beside those of curves.png, where they were logged."""


def curves(run: Run) -> tuple[list[Figure], str]:
    """What was logged over optimiser steps, and in sentences how to read it and what is not drawn."""
    unit = ((run.report or {}).get("units") or {}).get("reward")
    kind, steps = _kind(run), [step for points in run.metrics.series.values() for step, _ in points]
    over = (min(steps), max(steps)) if steps else None
    more = [replace(one, unit=unit or "implicit reward") if one.unit == REWARD else one for one in MORE[kind]]
    figures, left_out = [], []
    for panel in [*panels_of(kind, unit), *more]:
        points = [point for key in panel.series for point in run.metrics.series.get(key, [])]
        if len(points) > 1 or any(not math.isfinite(value) for _, value in points):
            figures.append(_panel(panel, run.metrics, over))
        elif points:
            ((step, value),) = points
            left_out.append(f"{panel.name}: {number(value, 4)} at step {number(step)}, the only time that it was taken")
        elif panel not in more:
            left_out.append(f"{panel.name}: {panel.empty if steps else 'nothing was logged yet'}")
    if unit is None and any("reward" in one.name for one in figures):
        left_out.insert(0, _reward(run))
    return figures, f"{'. '.join(left_out)}." if left_out else ""


def _reward(run: Run) -> str:
    """What an implicit reward is where the run has not told its unit, in a sentence."""
    what = "the log-ratio to the reference that the loss reads"
    said = f"{what}, without β, as this spec has none" if run.spec.get("kl") in (None, "none") else f"β times {what}"
    return f"Implicit reward: {said}; in nats, or in nats per token where the conventions say so"


def _kind(run: Run) -> Kind:
    if any(name.startswith("rollout/") for name in run.metrics.series):
        return "rollouts"
    return "scores" if run.kind == "reward" else "preferences"


def _panel(panel: Panel, metrics: Metrics, over: tuple[int, int] | None) -> Figure:
    series = []
    for place, (key, name) in enumerate(panel.series.items()):
        points = [(float(step), value) for step, value in metrics.series.get(key, []) if math.isfinite(value)]
        held_out = key.startswith("val/")
        band = None
        widths = dict(metrics.series.get(panel.width or "", [])) if place == 0 else {}
        if widths:
            band = [(value - widths.get(int(at), 0.0), value + widths.get(int(at), 0.0)) for at, value in points]
        series.append(
            Series(
                name,
                points,
                colour=1 if held_out else min(place, 7),
                noisy=key.startswith("train/") and not key.endswith("/beta") and len(points) >= 8,
                dots=held_out or len(points) <= 12,
                band=band,
                band_name="± standard deviation over answers",
            )
        )
    lost = sum(not math.isfinite(value) for key in panel.series for _, value in metrics.series.get(key, []))
    more = ["thin: each step, thick: mean of the steps around it"] if any(one.noisy for one in series) else []
    more += [f"values that were not finite and are not drawn: {lost}"] if lost else []
    about = "; ".join([f"{panel.name} over optimiser steps", *more])
    slug = "".join(letter if letter.isalnum() else "-" for letter in panel.name.lower())
    found = line_figure(
        f"curve-{slug}",
        panel.name,
        series,
        about=f"{about}.",
        x_name=STEP,
        unit=panel.unit,
        over=over,
        reference=0.5 if panel.chance else None,
        within=(0.0, 1.0) if panel.chance else None,
        empty=panel.empty,
    )
    return replace(found, plain=not more)


def reliability(found: Mapping[str, Any]) -> Figure:
    """Of a reward or preference model: what it claims and what is so."""
    bins = found["bins"]
    points = [Point("", one["claimed"], one["right"], told=f", {one['pairs']} pairs") for one in bins]
    about = (
        f"Claimed probability that the preferred answer is the better one, and how often it is. Expected calibration "
        f"error {fixed(found['ece'], 3)}, log loss {fixed(found['log_loss'], 3)} nats."
    )
    plane = Plane(
        x_name="claimed probability",
        y_name="share that is right",
        path=[(one["claimed"], one["right"]) for one in bins],
        diagonal=True,
    )
    return scatter_figure("reliability", "Reliability", points, plane, about=about)
