"""The rounds of a game or of reinforcement learning, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

SHOWN = 6  # columns that a terminal of 80 characters holds
NOTHING = "–"
Lines = list[tuple[str, list[str]]]


def rounds_table(rounds: Sequence[Mapping[str, Any]]) -> Table:
    """What happened in each round, one column a round.

    Args:
        rounds: Of each round what `nashtune.rounds.summary.summaries` gives. Of more rounds than fit, some are shown,
            the first and the last among them.
    """
    places = {round(k * (len(rounds) - 1) / (SHOWN - 1)) for k in range(SHOWN)}
    shown = [row for place, row in enumerate(rounds) if place in places]
    caption = f"{len(shown)} of {len(rounds)} rounds; report.json has all" if len(shown) < len(rounds) else None
    table = Table("round", title="rounds", caption=caption, caption_justify="left")
    for row in shown:
        table.add_column(str(row["round"]), justify="right")
    lines = _rewards(shown) if any("rewards" in row for row in rounds) else _game(rounds, shown)
    for name, values in lines:
        if any(value != NOTHING for value in values):
            table.add_row(Text(name), *values)
    return table


def _game(rounds: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> Lines:
    reasons = sorted({reason for row in rounds for reason in row["dropped"]})
    return [
        ("prompts", [f"{row['prompts']}" for row in shown]),
        ("completions", [f"{row['completions']}" for row in shown]),
        ("mean completion tokens", [_share(row["tokens"], row["completions"], "{:.1f}") for row in shown]),
        ("ended at the token limit", [_share(row["truncated"], row["completions"], "{:.0%}") for row in shown]),
        ("judgements", [f"{row['judgements']}" for row in shown]),
        ("mean oracle score", _column(shown, "score", "{:+.4g}")),
        ("pairs", [f"{row['pairs']}" for row in shown]),
        *((f"dropped: {reason}", [f"{row['dropped'].get(reason, 0)}" for row in shown]) for reason in reasons),
        ("optimiser steps", [f"{row['steps']}" for row in shown]),
        ("loss", _column(shown, "loss", "{:.5g}")),
        ("preference accuracy", _column(shown, "accuracy", "{:.3f}")),
    ]


def _rewards(shown: Sequence[Mapping[str, Any]]) -> Lines:
    return [
        ("prompts", [f"{row['prompts']}" for row in shown]),
        ("answers", [f"{row['rewards']}" for row in shown]),
        ("mean tokens", [_share(row["tokens"], row["completions"], "{:.1f}") for row in shown]),
        ("finished", [_share(row["completions"] - row["truncated"], row["completions"], "{:.0%}") for row in shown]),
        ("mean reward", _short(shown, "score", "+")),
        ("std of rewards", _short(shown, "score_std")),
        ("mean variance", _short(shown, "variance")),
        ("KL to ref, k1", _short(shown, "kl_k1", "+")),
        ("KL to ref, k3", _short(shown, "kl_k3")),
        ("mean β", _short(shown, "beta")),
        ("optimiser steps", [f"{row['steps']}" for row in shown]),
        ("loss", _short(shown, "loss", "+")),
    ]


def _column(shown: Sequence[Mapping[str, Any]], name: str, form: str) -> list[str]:
    return [NOTHING if row.get(name) is None else form.format(row[name]) for row in shown]


def _short(shown: Sequence[Mapping[str, Any]], name: str, sign: str = "") -> list[str]:
    """In seven characters, which six columns beside these names have: fewer digits where zeros take the room."""
    values = [row.get(name) for row in shown]
    return [NOTHING if v is None else f"{v:{sign}.{2 if abs(v) < 0.01 else 3}g}" for v in values]


def _share(part: float, whole: float, form: str) -> str:
    return form.format(part / whole) if whole else NOTHING
