"""Figures and tables of the rounds of a game or of reinforcement learning, from what a run has reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nashtune.html.drawing import Figure, Values
from nashtune.html.lines import Series, line_figure
from nashtune.html.matrix import DIAGONAL, Matrix, rate_cell
from nashtune.html.words import NOTHING, fixed, number

K1_K3 = (
    "Both estimators have the right mean over all answers; k1 may fall below zero, k3 never does. At several nats most "
    "of k3's mean lies with answers too rare to be drawn, so that its value is typically far too low: trust k1 there."
)


def win_matrix(found: Mapping[str, Any]) -> Matrix:
    """Win rates of a game's policies, from its report."""
    names = found["policies"]
    cells = []
    for i, name in enumerate(names):
        row = [
            DIAGONAL
            if i == j
            else rate_cell(found["rates"][i][j], found["low"][i][j], found["high"][i][j], f"{name} over {other}")
            for j, other in enumerate(names)
        ]
        mean, low, high = (found[key][i] for key in ("average", "average_low", "average_high"))
        cells.append([*row, rate_cell(mean, low, high, f"{name} over all others")])
    counts = {
        "equal answers, which count ½": found["identical"],
        "whose winner changed with the order": found["disagreements"],
        "without a usable answer": found["unanswered"],
    }
    more = "".join(f"; {count} {text}" for text, count in counts.items() if count)
    note = (
        f"{found['prompts']} held-out prompts, both orders averaged; {100 * found['level']:g} % bootstrap intervals "
        f"over prompts ({found['resamples']} resamples); {found['comparisons']} comparisons{more}."
    )
    about = "Mean P(row's answer is better than the column's). Bold: the interval leaves ½ out."
    return Matrix("wins", "Win rates", about, names, cells, ["all others"], note)


def round_figures(found: Mapping[str, Any]) -> list[Figure]:
    """How the policies of a game move, round by round, from the start on; of two policies a matrix says it all."""
    names = found.get("policies") or []
    moved = found.get("kl_from_start") or {}
    rewards = (found.get("rewards") or {}).get("policies") or {}
    figures = [_wins(found)] if len(names) > 2 else []
    figures += [_moved(moved)] if len(moved) > 1 else []
    return figures + ([_rewards(rewards)] if len(rewards) > 2 else [])


def _wins(found: Mapping[str, Any]) -> Figure:
    rows = zip(found["rates"], found["low"], found["high"], strict=True)
    ends = [(float(round), [row[0] for row in parts]) for round, parts in enumerate(rows) if round]
    known = [(round, rate, (low, high)) for round, (rate, low, high) in ends if None not in (rate, low, high)]
    series = Series("", [(at, rate) for at, rate, _ in known], dots=True, band=[band for _, _, band in known])
    about = "Policy of each round against the start, with its interval."
    title = "Win rate over the start"
    return line_figure("rounds-wins", title, [series], about=about, x_name="round", unit="win rate", reference=0.5)


def _moved(found: Mapping[str, Mapping[str, float]]) -> Figure:
    kinds = []
    for place, kind in enumerate(("k1", "k3")):
        values = enumerate((one[kind] for one in found.values()), start=1)
        points = [(float(round), value) for round, value in values if math.isfinite(value)]
        kinds.append(Series(kind, points, place, dots=True))
    about = f"KL(policy ‖ start) on each policy's own answers. {K1_K3}"
    unit = "nats per answer"
    return line_figure("rounds-kl", "KL from the start", kinds, about=about, x_name="round", unit=unit, reference=0.0)


def _rewards(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    ends = [(float(round), one["mean"], 2 * (one["se"] or 0.0)) for round, one in enumerate(found.values())]
    band = [(mean - reach, mean + reach) for _, mean, reach in ends]
    series = Series("", [(at, mean) for at, mean, _ in ends], 2, dots=True, band=band)
    about = f"Mean reward of held-out answers, ± 2 standard errors over prompts: {', '.join(found)}."
    title = "Reward of held-out answers"
    return line_figure("rounds-reward", title, [series], about=about, x_name="round (0: start)", unit="reward")


Column = tuple[str, Callable[[Mapping[str, Any]], str]]


def rounds_table(rounds: Sequence[Mapping[str, Any]]) -> Values:
    """One row a round; a column that is empty everywhere is left out."""
    reasons = sorted({reason for row in rounds for reason in row["dropped"]})
    columns: list[Column] = [
        ("round", lambda row: number(row["round"])),
        ("prompts", lambda row: number(row["prompts"])),
        ("completions", lambda row: number(row["completions"])),
        ("mean completion tokens", lambda row: _share(row["tokens"], row["completions"], 1)),
        ("ended at the token limit", lambda row: _percent(row["truncated"], row["completions"])),
        ("judgements", lambda row: number(row.get("judgements"))),
        ("mean score", lambda row: number(row.get("score"), 4, sign=True)),
        ("std of rewards", lambda row: number(row.get("score_std"))),
        ("mean variance", lambda row: number(row.get("variance"))),
        ("KL to ref, k1", lambda row: number(row.get("kl_k1"), sign=True)),
        ("KL to ref, k3", lambda row: number(row.get("kl_k3"))),
        ("mean β", lambda row: number(row.get("beta"), 4)),
        ("rollouts" if any("rewards" in row for row in rounds) else "pairs", lambda row: number(row["pairs"])),
        *((f"dropped: {reason}", _dropped(reason)) for reason in reasons),
        ("optimiser steps", lambda row: number(row["steps"])),
        ("loss", lambda row: number(row.get("loss"), 4)),
        ("preference accuracy", lambda row: fixed(row.get("accuracy"), 3)),
    ]
    cells = [[read(row) for row in rounds] for _, read in columns]
    kept = [place for place, values in enumerate(cells) if any(value != NOTHING for value in values)]
    return Values([columns[i][0] for i in kept], [[cells[i][r] for i in kept] for r in range(len(rounds))])


def _dropped(reason: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: number(row["dropped"].get(reason, 0))


def _share(part: float, whole: float, places: int) -> str:
    return fixed(part / whole, places) if whole else NOTHING


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else NOTHING
