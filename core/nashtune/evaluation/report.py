"""The end of a run: what was logged, a table, and the answers before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nashtune.evaluation.metrics_file import read_metrics_file


@dataclass(frozen=True)
class Metrics:
    """Logged values of a run: for each name, (step, value) in order of steps."""

    series: Mapping[str, list[tuple[int, float]]]

    def last(self, name: str) -> float | None:
        """The newest value of a metric, or None if it was never logged."""
        values = self.series.get(name)
        return values[-1][1] if values else None


def read_metrics(folder: Path) -> Metrics:
    """Merge the attempts of a run: a resumed attempt replaces what an earlier one logged after its checkpoint.

    Rows that cannot be read are left out, with a line.
    """
    merged: dict[str, dict[int, float]] = {}
    found = {path.name.removeprefix("attempt_"): path for path in (folder / "logs").glob("attempt_*")}
    # other names are copies that somebody has put beside them
    for number in sorted((name for name in found if name.isascii() and name.isdecimal()), key=int):
        path = found[number] / "metrics.csv"
        if not path.exists():
            continue
        rows = read_metrics_file(path)
        # by steps that were trained: an attempt that only had to finish measures again what the last one has logged
        trained = [step for step, values in rows if any(name.startswith("train/") for name in values)]
        for earlier in merged.values() if trained else ():
            for step in [s for s in earlier if s >= min(trained)]:
                del earlier[step]
        for step, values in rows:
            for name, value in values.items():
                merged.setdefault(name, {})[step] = value
    return Metrics({name: sorted(values.items()) for name, values in merged.items()})


def _unit(report: Mapping[str, Any]) -> str:
    """Of the implicit rewards, where the method tells it; a score is a number of its own."""
    unit = report["units"]["reward"]
    return f" {unit}" if unit not in (None, "score") else ""


def _in_attempts(report: Mapping[str, Any]) -> str:
    """How many attempts the time is of, and how much of it is not part of the result."""
    count, lost = len(report["attempts"]), report["throughput"]["lost_seconds"]
    if count == 1:
        return ""
    return f"   ({count} attempts" + (f"; {lost:.0f} s after the checkpoint that was gone on from)" if lost else ")")


def print_report(
    report: Mapping[str, Any], answers: Sequence[Mapping[str, str]], folder: Path, console: Console
) -> None:
    """The final table, the sampled answers, and where everything lies."""
    held_out, speed, kl = report["held_out"], report["throughput"], report["sampled_kl"]
    rows: list[tuple[str, str]] = [("optimiser steps", f"{report['steps']}")]
    if "accuracy" in held_out:
        rows.append(("held-out preference accuracy", f"{held_out['accuracy']:.3f}   (chance: 0.500)"))
    if "best_over_worst" in held_out:
        rows.append(("held-out lists, best over worst", f"{held_out['best_over_worst']:.3f}   (chance: 0.500)"))
    if "margin" in held_out:
        rows.append(("held-out reward margin", f"{held_out['margin']:+.4f}{_unit(report)}"))
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
        rows.append(
            ("KL along held-out answers", f"{held_out['kl_to_reference']:.4f} nats   (over the whole vocabulary)")
        )
    if report["beta"] is not None:
        rows.append((f"β {report['beta_when']}", f"{report['beta']:.6g}"))
    rows += [
        (
            "tokens/s trained on / positions/s computed",
            f"{speed['tokens_per_second']:.0f} / {speed['positions_per_second']:.0f}",
        ),
        ("padding share", f"{100 * speed['padding_share']:.1f} %"),
        ("peak memory", f"{speed['peak_memory_gib']:.2f} GiB"),
        ("training time", f"{speed['training_seconds']:.0f} s{_in_attempts(report)}"),
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
        ("reliability.png", "reliability"),
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
