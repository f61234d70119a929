"""Ratings on the terminal: by Elo, best first, each number over its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
from rich.table import Table
from rich.text import Text

from nashtune.comparison.elo import ANCHOR
from nashtune.comparison.ratings import Frontier, Ratings
from nashtune.evaluation.estimate import Estimate
from nashtune.evaluation.rate_table import matrix_table, rate_cell

SELDOM = 0.05
"""Share of resamples below which a policy is not said to be on the frontier."""


def tables(found: Ratings) -> list[Table]:
    """Ratings of each policy, who beats whom, what was spent for it, and circles where there are any."""
    made = [_ratings(found), _matrix(found), _moved(found)]
    return [*made, _cycles(found)] if found.cyclicity.cycles else made


def _ratings(found: Ratings) -> Table:
    table = Table("policy", title="ratings", caption=_below(_about(found)), caption_justify="left", show_lines=True)
    columns: list[tuple[str, Estimate, float | None, int]] = [
        ("Elo", found.elo.rating, ANCHOR, 0),
        ("mean win rate", found.mean_win_rate, 0.5, 3),
        ("length-controlled", found.length_controlled.mean, 0.5, 3),
        ("Nash average", found.nash.weight, None, 3),
        ("over the mixture", found.nash.value, 0.5, 3),
    ]
    for name, *_ in columns:
        table.add_column(name, justify="center")
    for i in best_first(found):
        cells = [_cell(numbers[i], even, digits) for _, numbers, even, digits in columns]
        table.add_row(Text(found.policies[i], style="bold"), *cells)
    return table


def _matrix(found: Ratings) -> Table:
    order = best_first(found)
    square = np.ix_(order, order)
    rates, average = found.win_rate, found.mean_win_rate
    return matrix_table(
        [found.policies[i] for i in order],
        (rates.value[square], rates.low[square], rates.high[square]),
        (average.value[order], average.low[order], average.high[order]),
        caption=_below([f"{found.comparisons} comparisons, both orders averaged, ties 1/2"]),
    )


def _moved(found: Ratings) -> Table:
    controlled, moved = found.length_controlled, found.frontier
    table = Table("policy", title="length, KL and gain", caption_justify="left", show_lines=True)
    columns: list[tuple[str, Estimate, int]] = [("tokens per answer", controlled.tokens, 1)]
    if moved is not None:
        table.caption = _below([_frontier(found, moved)])
        columns += [("KL from the start, nats", moved.kl, 2), (moved.axis, moved.gain, 3)]
    for name, *_ in columns:
        table.add_column(Text(name), justify="center")
    for i in best_first(found):
        cells = [_cell(numbers[i], None, digits) for _, numbers, digits in columns]
        table.add_row(Text(found.policies[i], style="bold"), *cells)
    return table


def _cycles(found: Ratings) -> Table:
    table = Table("first beats second", "second beats third", "third beats first", title="circles of three")
    table.add_column("confidence", justify="right")
    for one in found.cyclicity.cycles:
        names = (*one.policies, one.policies[0])
        steps = [Text(f"{a} > {b}  {rate:.3f}") for a, b, rate in zip(names[:-1], names[1:], one.rates, strict=True)]
        table.add_row(*steps, f"{one.confidence:.3f}")
    return table


def _about(found: Ratings) -> Iterable[str]:
    over = " and ".join(found.resampled)
    if over:
        yield f"{100 * found.level:g} % bootstrap intervals over {over}"
    yield f"Elo of {found.anchor} is {ANCHOR:g}"
    ranking = best_first(found)
    sure = [
        f"{found.policies[i]} above {found.policies[j]} {_percent(found.above[i, j])}"
        for i, j in pairwise(ranking)
        if not np.isnan(found.above[i, j])
    ]
    if sure:
        yield f"confidence in the ranking: {', '.join(sure)}"
    if np.abs(found.hard_win_rate.value - found.mean_win_rate.value).max() > 1e-9:  # NaN compares false
        hard = ", ".join(f"{found.policies[i]} {found.hard_win_rate.value[i]:.3f}" for i in ranking)
        yield f"win rates with every verdict certain (above 1/2 is a win): {hard}"
    controlled, share = found.length_controlled, found.cyclicity.share
    if controlled.scale == 0:  # NaN compares false
        yield "length effect: none to be seen, all answers had equal length"
    elif not np.isnan(controlled.effect.value):
        gained = f"{controlled.effect.value:+.2f}{_within(controlled.effect, 2, sign=True)}"
        yield f"length effect: {gained} in log-odds for being {controlled.scale:.0f} tokens longer"
    if not np.isnan(share.value):
        noise, chance = found.cyclicity.noise, found.cyclicity.chance
        alone = "" if np.isnan(noise) else f"; noise alone: {noise:.3f}, and as much or more in {_percent(chance)}"
        yield f"cyclic share {share.value:.3f}{_within(share, 3)}{alone}"
    yield from found.notes


def _frontier(found: Ratings, moved: Frontier) -> str:
    if not moved.best:
        return "KL divergences are missing"
    if np.isnan(moved.share).all():
        return f"no other policy has as much for less: {', '.join(moved.best)}"
    shares = dict(zip(found.policies, moved.share.tolist(), strict=True))
    others = [name for name, share in shares.items() if name not in moved.best and share >= SELDOM]
    said = f"no other policy has as much for less: {_with_shares(moved.best, shares)} of the resamples"
    return f"{said}; may be so of: {_with_shares(others, shares)}" if others else said


def _with_shares(names: Iterable[str], shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} in {_percent(shares[name])}" for name in names)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _within(numbers: Estimate, digits: int, *, sign: bool = False) -> str:
    if np.isnan(numbers.low):
        return ""
    form = f"{'+' if sign else ''}.{digits}f"
    return f" ({numbers.low:{form}} to {numbers.high:{form}})"


def _cell(numbers: Estimate, even: float | None, digits: int) -> Text:
    return rate_cell(float(numbers.value), float(numbers.low), float(numbers.high), even=even, digits=digits)


def best_first(found: Ratings) -> list[int]:
    """By Elo; those without one last."""
    rating = np.nan_to_num(found.elo.rating.value, nan=-np.inf)
    return [int(i) for i in np.argsort(-rating, kind="stable")]


def _below(lines: Iterable[str]) -> Text:
    return Text("\n".join(lines))
