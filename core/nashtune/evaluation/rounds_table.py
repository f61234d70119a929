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
    learnt = _rewards(shown) if any("rewards" in row for row in rounds) else _game(rounds, shown)
    for name, values in [*_drawn(shown), *learnt]:
        if any(value != NOTHING for value in values):
            table.add_row(Text(name), *values)
    return table


def _drawn(shown: Sequence[Mapping[str, Any]]) -> Lines:
    return [
        ("prompts", [f"{row['prompts']}" for row in shown]),
        ("completions", [f"{row['completions']}" for row in shown]),
        ("mean completion tokens", [_share(row["tokens"], row["completions"], "{:.1f}") for row in shown]),
        ("ended at the token limit", [_share(row["truncated"], row["completions"], "{:.0%}") for row in shown]),
    ]


def _game(rounds: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> Lines:
    reasons = sorted({reason for row in rounds for reason in row["dropped"]})
    return [
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
        ("rewards", [f"{row['rewards']}" for row in shown]),
        ("mean reward", _column(shown, "score", "{:+.4g}")),
        ("its std over answers", _column(shown, "score_std", "{:.3g}")),
        ("mean variance", _column(shown, "variance", "{:.3g}")),
        ("KL to ref, k1 (nats)", _column(shown, "kl_k1", "{:+.3g}")),
        ("KL to ref, k3 (nats)", _column(shown, "kl_k3", "{:.3g}")),
        ("β", _column(shown, "beta", "{:.3g}")),
        ("optimiser steps", [f"{row['steps']}" for row in shown]),
        ("loss", _column(shown, "loss", "{:.3g}")),
    ]


def _column(shown: Sequence[Mapping[str, Any]], name: str, form: str) -> list[str]:
    return [NOTHING if row.get(name) is None else form.format(row[name]) for row in shown]


def _share(part: float, whole: float, form: str) -> str:
    return form.format(part / whole) if whole else NOTHING
