"""The end of a run: a table, a picture, and the answers before and after."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

ROUNDS_SHOWN = 6  # columns of the table of rounds that a terminal of 80 characters holds
NOTHING = "–"


@dataclass(frozen=True)
class Metrics:
    """Logged values of a run: for each name, (step, value) in order of steps."""

    series: Mapping[str, list[tuple[int, float]]]

    def last(self, name: str) -> float | None:
        """The newest value of a metric, or None if it was never logged."""
        values = self.series.get(name)
        return values[-1][1] if values else None


def read_metrics(folder: Path) -> Metrics:
    """Merge the attempts of a run: a resumed attempt replaces what an earlier one logged after its checkpoint."""
    merged: dict[str, dict[int, float]] = {}
    attempts = sorted((folder / "logs").glob("attempt_*"), key=lambda p: int(p.name.removeprefix("attempt_")))
    for attempt in attempts:
        path = attempt / "metrics.csv"
        if not path.exists():
            continue
        with path.open(newline="") as stream:
            rows = [{k: v for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(stream)]
        first = min((int(row["step"]) for row in rows), default=0)
        for values in merged.values():
            for step in [s for s in values if s >= first]:
                del values[step]
        for row in rows:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    merged.setdefault(name, {})[int(row["step"])] = float(value)
    return Metrics({name: sorted(values.items()) for name, values in merged.items()})


def draw_curves(metrics: Metrics, path: Path, *, title: str) -> None:
    """Loss, accuracy, margin and KL control over optimiser steps, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        ("Loss", "nats", ["train/loss", "val/loss"]),
        ("Preference accuracy", "share of pairs", ["train/accuracy", "val/accuracy"]),
        ("Implicit reward margin", "β · nats", ["train/margin", "val/margin"]),
        ("KL control", "β", ["train/beta"]),
    ]
    labels = {"train": "training pairs", "val": "held-out pairs"}
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    for axis, (name, unit, series) in zip(axes.flat, panels, strict=True):
        for key in series:
            points = metrics.series.get(key, [])
            split = key.partition("/")[0]
            style = {
                "train": {"color": "#4c72b0", "alpha": 0.45, "lw": 1.0},
                "val": {"color": "#c44e52", "marker": "o", "lw": 1.8},
            }
            axis.plot([s for s, _ in points], [v for _, v in points], label=labels[split], **style[split])
            if split == "train" and len(points) >= 8 and name != "KL control":
                smooth = _moving_mean([v for _, v in points], max(2, len(points) // 8))
                axis.plot([s for s, _ in points], smooth, color="#4c72b0", lw=1.8, label="moving mean")
        if name == "Preference accuracy":
            axis.axhline(0.5, color="0.6", lw=0.8, ls=":")
            axis.set_ylim(-0.02, 1.02)
        axis.set(title=name, xlabel="optimiser step", ylabel=unit)
        axis.grid(alpha=0.25)
        if axis.lines and len(series) > 1:
            axis.legend(fontsize=8, frameon=False)
        if not any(metrics.series.get(key) for key in series):
            axis.text(
                0.5, 0.5, "not part of this method", ha="center", va="center", transform=axis.transAxes, color="0.5"
            )
    figure.suptitle(title, fontsize=11)
    partial = path.with_name(f".{path.name}.partial.png")
    figure.savefig(partial, dpi=130)
    pyplot.close(figure)
    partial.replace(path)


def _moving_mean(values: Sequence[float], width: int) -> list[float]:
    return [math.fsum(values[max(0, i - width + 1) : i + 1]) / min(width, i + 1) for i in range(len(values))]


def print_report(
    report: Mapping[str, Any], answers: Sequence[Mapping[str, str]], folder: Path, console: Console
) -> None:
    """The final table, the sampled answers, and where everything lies."""
    held_out, speed, kl = report["held_out"], report["throughput"], report["sampled_kl"]
    rows: list[tuple[str, str]] = [("optimiser steps", f"{report['steps']}")]
    if "accuracy" in held_out:
        rows.append(("held-out preference accuracy", f"{held_out['accuracy']:.3f}   (chance: 0.500)"))
    if "margin" in held_out:
        rows.append(("held-out reward margin", f"{held_out['margin']:+.4f}"))
    if "loss" in held_out:
        rows.append(("held-out loss", f"{held_out['loss']:.4f}"))
    if kl is not None:
        rows.append(
            (
                "KL to the reference, per answer",
                f"k1 {kl['k1']:+.3f}, k3 {kl['k3']:.3f} nats   ({kl['completions']:.0f} samples)",
            )
        )
    if "kl_to_reference" in held_out:
        rows.append(("KL along held-out answers", f"{held_out['kl_to_reference']:.4f} nats   (exact)"))
    if report["beta"] is not None:
        rows.append(("β at the end", f"{report['beta']:.6g}"))
    rows += [
        (
            "tokens/s, real / with padding",
            f"{speed['tokens_per_second']:.0f} / {speed['padded_tokens_per_second']:.0f}",
        ),
        ("padding share", f"{100 * speed['padding_share']:.1f} %"),
        ("peak memory", f"{speed['peak_memory_gib']:.2f} GiB"),
        ("training time", f"{speed['training_seconds']:.0f} s"),
    ]
    table = Table("", "", title=f"{report['spec']}: result", show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    for answer in answers:
        body = Text.assemble(
            ("before  ", "bold"),
            answer.get("before", "(not sampled)") or "(empty)",
            "\n",
            ("after   ", "bold"),
            answer.get("after", "") or "(empty)",
        )
        console.print(Panel(body, title=Text(answer["prompt"].strip().replace("\n", " ")[:100]), title_align="left"))
    for name, what in [
        ("curves.png", "curves"),
        ("win_rates.png", "win rates"),
        ("journal", "every round, as it was"),
        ("snapshots", "every round's weights"),
        ("checkpoints", "checkpoint"),
        ("export", "model, Hugging Face format"),
        ("report.json", "these figures"),
        ("samples.json", "all sampled answers"),
    ]:
        if (folder / name).exists():
            console.print(f"{what + ':':28}{folder / name}", soft_wrap=True, highlight=False)


def rounds_table(rounds: Sequence[Mapping[str, Any]]) -> Table:
    """What happened in each round of a game, one column a round.

    Args:
        rounds: Of each round `round`, `prompts`, `completions`, `tokens` (of all completions), `truncated` (completions
            that ended at the token limit), `judgements`, `pairs`, `dropped` (pairs that were not made, by reason),
            `steps`, `loss` and `accuracy` (means over its updates; None where there were none), and `score` (mean
            score of the completions), which a preference oracle does not have. Of more rounds than fit, some are
            shown, the first and the last among them.
    """
    places = {round(k * (len(rounds) - 1) / (ROUNDS_SHOWN - 1)) for k in range(ROUNDS_SHOWN)}
    shown = [row for place, row in enumerate(rounds) if place in places]
    caption = f"{len(shown)} of {len(rounds)} rounds; report.json has all" if len(shown) < len(rounds) else None
    table = Table("round", title="rounds", caption=caption, caption_justify="left")
    for row in shown:
        table.add_column(str(row["round"]), justify="right")
    reasons = sorted({reason for row in rounds for reason in row["dropped"]})
    lines: list[tuple[str, list[str]]] = [
        ("prompts", [f"{row['prompts']}" for row in shown]),
        ("completions", [f"{row['completions']}" for row in shown]),
        ("mean completion tokens", [_share(row["tokens"], row["completions"], "{:.1f}") for row in shown]),
        ("ended at the token limit", [_share(row["truncated"], row["completions"], "{:.0%}") for row in shown]),
        ("judgements", [f"{row['judgements']}" for row in shown]),
        ("mean oracle score", [_number(row.get("score"), "{:+.4g}") for row in shown]),
        ("pairs", [f"{row['pairs']}" for row in shown]),
        *((f"dropped: {reason}", [f"{row['dropped'].get(reason, 0)}" for row in shown]) for reason in reasons),
        ("optimiser steps", [f"{row['steps']}" for row in shown]),
        ("loss", [_number(row["loss"], "{:.5g}") for row in shown]),
        ("preference accuracy", [_number(row["accuracy"], "{:.3f}") for row in shown]),
    ]
    for name, values in lines:
        if any(value != NOTHING for value in values):
            table.add_row(Text(name), *values)
    return table


def _share(part: float, whole: float, form: str) -> str:
    return form.format(part / whole) if whole else NOTHING


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)
