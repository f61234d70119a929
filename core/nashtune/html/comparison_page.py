"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nashtune.comparison.folder import ANSWERS, JUDGEMENTS, RESULT, home_of, is_so_far
from nashtune.html.comparison_board import board, tiles, untrained
from nashtune.html.comparison_circles import cycles, cyclic
from nashtune.html.comparison_counts import cut_shares, cut_warning, merged, outcome_table
from nashtune.html.comparison_figures import (
    colours,
    ranked,
    rating_figures,
    win_matrices,
)
from nashtune.html.comparison_files import Compared, answers_of_comparison, read_comparison
from nashtune.html.comparison_frontier import frontier_figure, measured
from nashtune.html.comparison_setup import costs, data_table, differing, held_out, lead, made_table, run_pages
from nashtune.html.page import page
from nashtune.html.words import listed, number


def render(folder: Path) -> str:
    """The page of a comparison that has ended, as one HTML text.

    Args:
        folder: Of the comparison, as `nashtune compare` leaves it.

    Raises:
        InputError: it has not ended, or a file in it is not what was written.
    """
    found = read_comparison(folder)
    ratings, home = found.ratings, home_of(folder)
    data = found.result.get("data") or {}
    first = found.result.get("warnings") or []
    rest = [remark for remark in found.result["remarks"] if remark not in first]
    over = listed(ratings.resampled) if ratings.resampled else ""
    moved = ratings.frontier
    specs, cut = list(found.result["specs"]), cut_shares(found.answers)
    return page(
        "comparison.html.j2",
        name=folder.resolve().name if home == folder else f"{home.name} / {folder.resolve().name}",
        home="" if home == folder else "../../index.html",
        heading=listed(specs),
        lead=lead(found),
        status=_status(found),
        lacking=_sentence(first[0], specs) if is_so_far(folder) else "",
        prompts=held_out(data),
        warnings=[_sentence(note, specs) for note in (*cut_warning(cut), *first[is_so_far(folder) :], *ratings.notes)],
        notes=[_sentence(note, specs) for note in merged(rest, specs)],
        tiles=tiles(ratings, untrained(found)),
        level=f"{100 * ratings.level:g} %",
        over=f", over {over}" if over else "",
        board=board(found, cut),
        colour=colours(ratings.policies),
        matrices=win_matrices(ratings),
        outcomes=outcome_table(found.verdicts, [ratings.policies[i] for i in ranked(ratings)]),
        ratings=rating_figures(ratings),
        cyclic=cyclic(ratings),
        cycles=cycles(ratings),
        frontier=frontier_figure(ratings, moved, found.seeds) if moved and measured(moved) else None,
        data=data_table(data),
        differs=differing(found.result.get("differs") or [], specs),
        made=made_table(found),
        costs=costs(found),
        runs=run_pages(found),
        first_run=f"{home.resolve().name}/runs/{specs[0]}/seed-{found.seeds[0]}",
        answers=answers_of_comparison(found),
        files={"answers": ANSWERS, "judgements": JUDGEMENTS, "result": RESULT},
        settings=_settings(found.request),
    )


def _status(found: Compared) -> str:
    ratings, versions = found.ratings, found.result["versions"]
    made = ", ".join(f"{name} {versions[name]}" for name in ("nashtune", "torch", "transformers") if name in versions)
    missing = f", {number(ratings.unanswered)} without a verdict" if ratings.unanswered else ""
    return f"{number(ratings.comparisons)} pairs of answers were judged{missing}. {made}."


def _sentence(note: str, specs: Sequence[str]) -> str:
    word = note.partition(" ")[0]
    typed = not word.isalpha() or word in specs  # a name stays as it is typed
    begin = note if typed else note[:1].upper() + note[1:]
    return begin if note.endswith(".") else f"{begin}."


def _settings(request: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The request in parts: what is for all, and each spec."""
    rest = {name: part for name, part in request.items() if name != "specs"}
    return [
        ("Run, budget, judge and versions", _yaml(rest)),
        *((f"Spec {name}", _yaml(spec)) for name, spec in request["specs"].items()),
    ]


def _yaml(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
