"""What a run logged over its optimiser steps, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nashtune.evaluation.report import Metrics
from nashtune.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["preferences", "scores", "rollouts"]


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Args:
        name: Title.
        unit: Of the values.
        series: Name of each metric, and of its curve; "" where it needs none.
        empty: What to say where nothing was logged.
        width: Metric that is drawn as a band of this half-width around the first one.
        chance: Values are shares, with a line at one half.
    """

    name: str
    unit: str
    series: Mapping[str, str]
    empty: str = "not part of this method"
    width: str | None = None
    chance: bool = False


LOSS = "mean of the step's rows"
"""What stands for the unit of a loss: DPO's is in nats, IPO's in their squares, a hinge loss has none."""
REWARD = "β · nats"
"""What stands for the unit of implicit rewards before a run tells its own; see `panels_of`."""
BOTH = {"train": "training pairs", "val": "held-out pairs"}
LISTS = {"train": "training lists", "val": "held-out lists"}


def _both(name: str) -> dict[str, str]:
    return {f"{split}/{name}": label for split, label in BOTH.items()}


ACCURACY = Panel("Preference accuracy", "share of pairs", _both("accuracy"), chance=True)
PANELS: dict[Kind, list[Panel]] = {
    "preferences": [
        Panel("Loss", LOSS, _both("loss")),
        ACCURACY,
        Panel("Implicit reward margin", REWARD, _both("margin")),
        Panel("KL control", "β", {"train/beta": ""}),
    ],
    "scores": [
        Panel("Loss", LOSS, _both("loss")),
        replace(
            ACCURACY,
            series=_both("accuracy")
            | {f"{split}/best_over_worst": f"{label}, best over worst" for split, label in LISTS.items()},
        ),
        Panel("Score margin", "better minus worse answer", _both("margin")),
        Panel(
            "Mean score",
            "score",
            {"train/reward_chosen": "better, training", "train/reward_rejected": "worse, training"},
        ),
    ],
    "rollouts": [
        Panel("Reward", "mean over rollouts", {"rollout/reward": "mean"}, width="rollout/reward_std"),
        Panel("KL to the reference", "nats per answer", {"rollout/kl_ref_k1": "k1", "rollout/kl_ref_k3": "k3"}),
        Panel("Variance of the reward", "mean over rollouts", {"rollout/variance": ""}, "the oracle knows no variance"),
        Panel("KL control", "mean β", {"rollout/beta": ""}),
        Panel("Answer length", "mean tokens", {"rollout/length": ""}),
        Panel("Loss", "", {"train/loss": ""}),
    ],
}
TRAIN, OTHER = "#4c72b0", "#c44e52"


def panels_of(kind: Kind, reward_unit: str | None) -> list[Panel]:
    """The panels of a run.

    Args:
        kind: Of the run.
        reward_unit: What the method measures implicit rewards in; None where it does not tell.
    """
    told = reward_unit or "implicit reward"
    return [replace(one, unit=told) if one.unit == REWARD else one for one in PANELS[kind]]


def draw_curves(
    metrics: Metrics, path: Path, *, title: str, scores: bool = False, reward_unit: str | None = None
) -> None:
    """Curves over optimiser steps, as a PNG.

    Of reinforcement learning: reward, KL, variance, β, length and loss. Of other runs: loss, accuracy, margin and KL
    control; of a reward model its scores instead.

    Args:
        metrics: What was logged.
        path: Of the PNG.
        title: Above it.
        scores: Whether a reward model was trained.
        reward_unit: As `panels_of` has it.
    """
    from matplotlib.figure import Figure

    rollouts = any(name.startswith("rollout/") for name in metrics.series)
    panels = panels_of("rollouts" if rollouts else "scores" if scores else "preferences", reward_unit)
    figure = Figure(figsize=(5.0 * len(panels) / 2, 6.4), layout="constrained")
    for axis, panel in zip(figure.subplots(2, len(panels) // 2).flat, panels, strict=True):
        _draw(axis, panel, metrics)
    figure.suptitle(title, fontsize=11)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _draw(axis: Axes, panel: Panel, metrics: Metrics) -> None:
    drawn = {key: points for key in panel.series if (points := metrics.series.get(key))}
    for i, (key, points) in enumerate(drawn.items()):
        steps, values = [step for step, _ in points], [value for _, value in points]
        style: dict[str, Any] = {"color": OTHER if i or key.startswith("val/") else TRAIN, "lw": 1.8}
        if key.startswith("val/") or len(points) <= 12:
            style |= {"marker": "o", "ms": 4}
        noisy = key.startswith("train/") and not key.endswith("/beta") and len(points) >= 8
        label = panel.series[key]
        if noisy:
            axis.plot(steps, values, label=label, color=style["color"], alpha=0.45, lw=1.0)
            style.pop("marker", None)
            label, values = "moving mean" if label else "", _moving_mean(values, max(2, len(points) // 8))
        axis.plot(steps, values, label=label or None, **style)
        widths = dict(metrics.series.get(panel.width or "", [])) if i == 0 else {}
        if widths:
            low = [value - widths.get(step, 0.0) for step, value in points]
            high = [value + widths.get(step, 0.0) for step, value in points]
            axis.fill_between(steps, low, high, color=style["color"], alpha=0.15, lw=0, label="± std of answers")
    if panel.chance:
        axis.axhline(0.5, color="0.6", lw=0.8, ls=":")
        axis.set_ylim(-0.02, 1.02)
    axis.set(title=panel.name, xlabel="optimiser step", ylabel=panel.unit)
    axis.grid(alpha=0.25)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=8, frameon=False)
    if not drawn:
        axis.text(0.5, 0.5, panel.empty, ha="center", va="center", transform=axis.transAxes, color="0.5")


def _moving_mean(values: Sequence[float], width: int) -> list[float]:
    return [math.fsum(values[max(0, i - width + 1) : i + 1]) / min(width, i + 1) for i in range(len(values))]
