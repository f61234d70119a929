"""The head of a comparison's page: tiles and the ranking, none of which may claim more than the intervals allow."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nashtune.comparison.judged import START
from nashtune.comparison.ratings import Ratings
from nashtune.evaluation.estimate import Estimate
from nashtune.html.comparison_circles import circular
from nashtune.html.comparison_counts import mean_rewards
from nashtune.html.comparison_figures import ranked
from nashtune.html.comparison_files import Compared
from nashtune.html.comparison_frontier import measured
from nashtune.html.facts import Tile
from nashtune.html.words import NOTHING, finite, fixed, interval, listed, number

IN_MIXTURE = 0.005
"""Weight from which on a policy is shown as part of the Nash mixture: it would be printed as 0.01."""
UNDETERMINED = "not determined"
NOTHING_TO_RESAMPLE = "one prompt and one seed: nothing to resample"
Shown = tuple[str, str]
"""A figure and what stands below it."""


def shown(estimate: Estimate, place: int | tuple[()], places: int) -> Shown:
    """A value and its interval as texts."""
    value, low, high = (finite(float(part[place])) for part in (estimate.value, estimate.low, estimate.high))
    return fixed(value, places), interval(low, high, places)


def tiles(ratings: Ratings, gone: Collection[str] = ()) -> list[Tile]:
    """The main figures, each with its interval, or what there is in place of one that is not determined.

    Args:
        ratings: Of the comparison.
        gone: Names of specs in which nothing was trained, so that no policy of theirs takes part.
    """
    found = [_highest(ratings, gone), _mean(ratings, gone), _mixture(ratings)]
    return [*found, _cyclic(ratings)] if ratings.cyclicity.triples else found


def rivals(ratings: Ratings, best: int, gone: Collection[str]) -> list[str]:
    """Policies that one is not told apart from: their win rate may be 1/2, or they were never compared."""
    known = ~np.isnan(ratings.win_rate.value[best])
    near = ratings.near[ratings.policies[best]]
    others = [i for i in ranked(ratings) if i != best and ratings.policies[i] not in gone]
    return [ratings.policies[i] for i in others if ratings.policies[i] in near or not known[i]]


def untrained(found: Compared) -> set[str]:
    """Specs in which nothing was trained, with no seed."""
    return {one.policy for one in found.costs} - {one.policy for one in found.costs if one.untrained is None}


def _highest(ratings: Ratings, gone: Collection[str]) -> Tile:
    """The policy with the highest Elo, whom it is not told apart from, and who beats it all the same."""
    best = ranked(ratings)[0]
    name, near = ratings.policies[best], rivals(ratings, best, gone)
    elo, ends = shown(ratings.elo.rating, best, 0)
    told = f"{elo} ({ends})" if ends else elo
    if elo == NOTHING:
        return Tile("highest Elo", NOTHING, "nothing was judged")
    if not ratings.resampled:
        return Tile("highest Elo", UNDETERMINED, f"{name} {elo}; {NOTHING_TO_RESAMPLE}")
    by = ratings.beaten_by[name]
    beaten = ""
    if by:
        rates = (float(ratings.win_rate.value[ratings.policies.index(other), best]) for other in by)
        beaten = f"but {listed(f'{a} beats it ({fixed(rate, 2)})' for a, rate in zip(by, rates, strict=True))}"
    if near:
        parts = [f"{name} {told}", f"not told apart from {listed(near)}", beaten]
        return Tile("highest Elo", UNDETERMINED, ", ".join(filter(None, parts)))
    return Tile("highest Elo", f"{name}, {beaten}" if beaten else name, told)


def _mean(ratings: Ratings, gone: Collection[str]) -> Tile:
    """Mean win rate of the best policy; where nobody is the best, those of all."""
    best = ranked(ratings)[0]
    if ratings.resampled and not rivals(ratings, best, gone):
        return Tile(f"mean win rate of {ratings.policies[best]}", *shown(ratings.mean_win_rate, best, 3))
    known = ratings.mean_win_rate.value[np.isfinite(ratings.mean_win_rate.value)]
    if not known.size:
        return Tile("mean win rates", NOTHING, "nothing was judged")
    detail = f"lowest and highest of {len(known)} policies; who is the best is not determined"
    return Tile("mean win rates", f"{fixed(known.min(), 3)} to {fixed(known.max(), 3)}", detail)


def _mixture(ratings: Ratings) -> Tile:
    """The Nash mixture; of one that the judgements do not determine its sure members alone."""
    weight = ratings.nash.weight
    found = []
    for i, name in enumerate(ratings.policies):
        if not weight.value[i] > IN_MIXTURE:  # NaN compares false
            continue
        value, ends = shown(weight, i, 2)
        found.append((name, f"{name} {value}{f' ({ends})' if ends else ''}"))
    if not found:
        return Tile("Nash average", NOTHING, "some policies were never compared")
    if not ratings.resampled:
        return Tile("Nash average", UNDETERMINED, NOTHING_TO_RESAMPLE)
    if not ratings.nash.determined:
        sure = f"surely in it: {listed(ratings.nash.sure)}" if ratings.nash.sure else "no policy is surely in it"
        return Tile("Nash average", UNDETERMINED, sure)
    value = found[0][0] if len(found) == 1 else f"{len(found)} policies"
    return Tile("Nash average", value, ", ".join(text for _, text in found))


def _cyclic(ratings: Ratings) -> Tile:
    """The cyclic share, where it is more than noise alone makes."""
    found = ratings.cyclicity
    value, ends = shown(found.share, (), 3)
    if value == NOTHING:
        return Tile("cyclic share", NOTHING, "some policies were never compared")
    if circular(ratings):
        return Tile("cyclic share", value, "; ".join(filter(None, (ends, "of the log-odds"))))
    noise = "" if math.isnan(found.noise) else f"; noise alone makes {fixed(found.noise, 3)}"
    return Tile("cyclic share", UNDETERMINED, f"{value} of the log-odds{noise}")


def board(found: Compared, cut: Mapping[str, float]) -> dict[str, Any]:
    """The ranking: columns, and rows of figures over their intervals.

    Args:
        found: The comparison.
        cut: Share of each policy's answers that were cut at the token limit.
    """
    ratings = found.ratings
    order = ranked(ratings)
    kind, spent = _spent(found)
    nash = "Nash average" if ratings.nash.determined else "Nash average, not determined"
    columns = ["policy", "Elo", "mean win rate", "hard win rate", "length-controlled", nash, f"{kind} spent"]
    columns += ["tokens an answer", "cut at the limit"]
    frontier = ratings.frontier
    if measured(frontier):
        columns.append("KL to start, nats")
    rewards = mean_rewards(found.answers)
    columns += ["reward"] if rewards else []
    rows = []
    for i in order:
        name = ratings.policies[i]
        anchor = name == ratings.anchor
        elo = shown(ratings.elo.rating, i, 0)
        row: list[Shown] = [
            (name, _beside(found, name)),
            (elo[0], "by definition") if anchor and elo[1] else elo,
            shown(ratings.mean_win_rate, i, 3),
            shown(ratings.hard_win_rate, i, 3),
            shown(ratings.length_controlled.mean, i, 3),
            shown(ratings.nash.weight, i, 2),
            spent.get(name, (NOTHING, "")),
            shown(ratings.length_controlled.tokens, i, 1),
            (f"{100 * cut[name]:.0f} %" if name in cut else NOTHING, ""),
        ]
        if frontier is not None and measured(frontier):
            kl = shown(frontier.kl, i, 3)
            row.append((kl[0], "by definition") if name == START else kl)
        if rewards:
            mean = (fixed(rewards.get(name), 3), "")  # without a frontier there is no interval
            row.append(shown(frontier.gain, i, 3) if frontier and frontier.axis == "reward" else mean)
        rows.append(row)
    return {"columns": columns, "rows": rows, "neighbours": neighbours(ratings, order)}


def _beside(found: Compared, name: str) -> str:
    """What stands below a policy's name: that some or all of its trainings have trained nothing, and who judged it."""
    seeds = [str(one.seed) for one in found.costs if one.policy == name and one.untrained is not None]
    nothing = "nothing was trained" if seeds else ""
    if seeds and name not in untrained(found):
        nothing += f" with seed {listed(seeds)}"
    return ", ".join(filter(None, (nothing, "trained on the judge" if name in found.on_judge else "")))


def _spent(found: Compared) -> tuple[str, dict[str, Shown]]:
    """Kind of the budget, and what each spec has spent of it with the seed that has spent the least."""
    budget = found.result["budget"]
    kind = budget["kind"] if budget["amount"] else "steps"
    allowed = f"of {number(budget['amount'])}" if budget["amount"] else ""
    return kind, {name: (number(one[kind]), allowed) for name, one in found.result["spent"].items()}


def neighbours(ratings: Ratings, order: Sequence[int]) -> str:
    """How sure the order of each two neighbours is, in a sentence; "" where there was nothing to resample."""
    told = [
        f"{ratings.policies[i]} above {ratings.policies[j]} {100 * float(ratings.above[i, j]):.0f} %"
        for i, j in pairwise(order)
        if math.isfinite(ratings.above[i, j])
    ]
    return f"Confidence in the ranking: {listed(told)}." if told else ""
