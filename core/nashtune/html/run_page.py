"""The page of one run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from nashtune.evaluation.reward_table import reward_table
from nashtune.html.drawing import Values
from nashtune.html.facts import Tile, attempts_table, costs, data_table, environment_table, paper_link
from nashtune.html.journal_items import journal_browser
from nashtune.html.page import page
from nashtune.html.prompts import Prompts
from nashtune.html.round_figures import round_figures, rounds_table, win_matrix
from nashtune.html.row_items import row_browser
from nashtune.html.run_answers import answers_of_run
from nashtune.html.run_figures import curves, reliability
from nashtune.html.run_files import COMPARISON, Run, read_run
from nashtune.html.words import fixed, interval, number
from nashtune.spec.reductions import reduction_text

PAGE = "index.html"  # of a comparison
ABOUT = ("title", "paper", "kind", "equation", "conventions", "reduces_to")
"""What a spec may say of itself."""


K1 = "nats per answer (k1), without an interval"
"""Of whole answers k1 is right at any distance, as on the page of a comparison; k3 is far too low at several nats."""


def render(folder: Path) -> str:
    """The page of a run, finished or not, as one HTML text.

    Args:
        folder: Of the run.

    Raises:
        InputError: it is no run folder, or a file in it is not what was written.
    """
    run = read_run(folder)
    report = run.report or {}
    figures, curves_note = curves(run)
    of, beside = _comparison(run.folder)
    prompts = Prompts(run)
    journal = run.folder / "journal"
    answers = answers_of_run(run)
    browser = journal_browser(journal, prompts) if journal.is_dir() else row_browser(run, prompts)
    played = report.get("win_rates") or {}
    verdicts = report.get("verdicts")
    rounds = report.get("rounds") or []
    own = run.spec.get("about") or {}
    about = {name: "" for name in ABOUT} | dict(own) | {"reduces_to": reduction_text(own)}
    return page(
        "run.html.j2",
        name=of or folder.resolve().name,
        comparison=beside,
        spec_name=run.spec["name"],
        about=about,
        paper=paper_link(about["paper"]),
        status=_status(run),
        nothing=report.get("untrained") or "",
        tiles=_tiles(report),
        curves=figures,
        curves_note=curves_note,
        round_figures=round_figures(played),
        rounds=rounds_table(rounds) if rounds else None,
        matrix=win_matrix(played) if played.get("policies") else None,
        verdicts=_verdicts(verdicts) if verdicts else None,
        reliability=reliability(verdicts["calibration"]) if verdicts else None,
        answers=answers,
        browser=browser,
        spec=_yaml(run.spec),
        settings=_yaml(_given({name: part for name, part in run.config.items() if name != "spec"})),
        data=data_table(report.get("data") or {}),
        environment=environment_table(run.environment),
        costs=costs(report, run.attempts),
        attempts=attempts_table(report),
    )


def _status(run: Run) -> str:
    if run.report is None:
        steps = [step for points in run.metrics.series.values() for step, _ in points]
        reached = f"it has logged {number(max(steps))} optimiser steps" if steps else "it has logged nothing yet"
        return f"This run is not finished: {reached}, and there is no report.json."
    ended = datetime.fromtimestamp((run.folder / "report.json").stat().st_mtime, tz=UTC)
    again = f", in {run.attempts} attempts" if run.attempts > 1 else ""
    return f"Finished {ended:%Y-%m-%d %H:%M} UTC after {number(run.report['steps'])} optimiser steps{again}."


def _comparison(folder: Path) -> tuple[str, str]:
    """Name of a training within its comparison, and address of the comparison's page; "" where there is none."""
    at = folder.resolve()
    whole = at.parents[2] if len(at.parents) > 2 else at
    if at.parents[1].name != "runs" or not (whole / COMPARISON).is_file():
        return "", ""
    return f"{whole.name} / {at.parent.name} / {at.name}", "../../../index.html" if (whole / PAGE).is_file() else ""


def _tiles(report: Mapping[str, Any]) -> list[Tile]:
    held_out, kl, speed = (report.get(name) or {} for name in ("held_out", "sampled_kl", "throughput"))
    found = []
    played = report.get("win_rates") or {}
    if played.get("policies"):
        ends = (played[key][-1][0] for key in ("rates", "low", "high"))
        rate, low, high = ends
        found.append(Tile(f"{played['policies'][-1]} beats start", fixed(rate, 3), interval(low, high)))
    moved = played.get("kl_from_start") or {}
    if moved:
        last, values = list(moved.items())[-1]
        found.append(Tile(f"KL({last} ‖ start)", number(values["k1"]), f"{K1}; k3 {number(values['k3'])}"))
    change = (played.get("rewards") or {}).get("change")
    if change:
        error = "" if change["se"] is None else f"± {number(change['se'])}, "
        found.append(Tile("change in reward", number(change["mean"], sign=True), f"{error}held-out answers"))
    if "accuracy" in held_out:
        found.append(Tile("held-out accuracy", fixed(held_out["accuracy"], 3), "chance 0.500"))
    if "best_over_worst" in held_out:
        found.append(Tile("best over worst", fixed(held_out["best_over_worst"], 3), "held-out lists, chance 0.500"))
    if "margin" in held_out:
        found.append(Tile("held-out margin", number(held_out["margin"], sign=True), "reward, chosen less rejected"))
    if "loss" in held_out:
        found.append(Tile("held-out loss", number(held_out["loss"], 4), ""))
    if kl:
        count = int(kl["completions"])
        detail = f"{K1}, {count} answer{'' if count == 1 else 's'}; k3 {number(kl['k3'])}"
        found.append(Tile("KL(policy ‖ ref)", number(kl["k1"]), detail))
    if report.get("beta") is not None:
        found.append(Tile(f"β {report.get('beta_when', 'at the end')}", number(report["beta"], 4)))
    if speed:
        found.append(Tile("tokens per second", number(round(speed["tokens_per_second"])), "trained on"))
    return found


def _verdicts(found: Mapping[str, Any]) -> Values:
    """The table of the command line, as it is."""
    table = reward_table(found, title="")
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    rows = [list(row) for row in zip(*cells, strict=True)]
    return Values([str(column.header) for column in table.columns], rows, str(table.caption or ""))


def _given(part: Any) -> Any:
    """Without what nobody has set."""
    if isinstance(part, Mapping):
        return {name: _given(value) for name, value in part.items() if value is not None}
    return part


def _yaml(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
