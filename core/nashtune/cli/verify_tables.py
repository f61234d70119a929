"""What `nashtune verify` prints of preference matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nashtune.cli.output import print_table
from nashtune.terminal import say

if TYPE_CHECKING:
    from nashtune.games.report import Report
    from nashtune.spec.model import Spec

SHOWN_ACTIONS = 12
"""Policies on larger games are not printed."""


def print_report(report: Report, spec: Spec) -> None:
    """Distances by round, policies, and how fast the distances fall.

    Args:
        report: Of the games.
        spec: Its spec.
    """
    games = ", ".join(game.name for game in report.games)
    say(f"{spec.name} on {games}: {report.rounds} round{'s' if report.rounds != 1 else ''}, float64")
    columns: dict[str, Sequence[float | None]] = {"gap, last": report.gap_last, "gap, average": report.gap_average}
    if report.bound is not None:
        columns[f"bound {report.bound[0]}"] = report.bound[1]
    if report.regularised is not None:
        columns[f"gap, last, τ = {report.tau:g}"] = report.regularised
    columns |= {"KL to start": report.kl_start, "KL from Nash": report.kl_nash}
    if report.kl_regularised is not None:
        columns["KL from Nash, τ"] = report.kl_regularised
    if report.kl_bound is not None:
        columns[f"its bound {report.kl_bound[0]}"] = report.kl_bound[1]
    rows = [[str(t), *(_number(values[t]) for values in columns.values())] for t in _chosen(report.rounds)]
    print_table(["round", *columns], rows)
    for number, game in enumerate(report.games):
        if game.size <= SHOWN_ACTIONS:
            named = {
                "last": report.last[number][-1],
                "average": report.average[number][-1],
                "Nash": report.nash[number],
            }
            if report.regularised_nash is not None:
                named["Nash, τ"] = report.regularised_nash[number]
            print_table([f"policy on {game.name}", *map(str, range(game.size))], _policies(named))
    if report.rate is not None:
        begin = (report.rounds + 1) ** 0.5
        say(f"average gap: like T^{report.rate:.3f} (fitted from T = {begin:.0f} on; T counts the start policy)")
    if report.last_factor is not None:
        which = "Nash" if report.kl_regularised is None else "regularised Nash"
        say(f"KL from the {which} policy over the second half: times {report.last_factor:.6f} per round")
    for note in report.notes:
        say(f"note: {note}")


def _policies(named: Mapping[str, Any]) -> list[list[str]]:
    return [[name, *(f"{p:.6f}" for p in policy)] for name, policy in named.items()]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _chosen(rounds: int) -> Iterator[int]:
    """0, 1, 2, 5, 10, 20, 50, ... and the last round."""
    yield 0
    scale = 1
    while scale < rounds:
        yield from (t for t in (scale, 2 * scale, 5 * scale) if t < rounds)
        scale *= 10
    yield rounds
