"""What each policy of a comparison gained, against how far it moved from the start for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nashtune.comparison.judged import K1, PER_TOKEN
from nashtune.comparison.ratings import Frontier, Ratings
from nashtune.html.comparison_figures import colours, entry
from nashtune.html.drawing import Figure
from nashtune.html.plane import Ends, Plane, Point
from nashtune.html.scatter import scatter_figure
from nashtune.html.words import finite, listed

ESTIMATORS = {
    PER_TOKEN: (
        "The KL divergence is exact over the vocabulary for each next token, summed over the tokens of an answer; its "
        "mean is over the policy's own answers. Intervals are drawn from 0 on."
    ),
    K1: "A KL divergence is not below 0, though its estimate (k1) may be: intervals are drawn from 0 on.",
}
"""What stands below the figure of what the KL divergence is."""


def measured(found: Frontier | None) -> bool:
    """Whether there is a KL divergence of any policy; answers at another temperature than 1 do not tell it."""
    return found is not None and bool(np.isfinite(found.kl.value).any())


def frontier_figure(ratings: Ratings, found: Frontier, seeds: Sequence[int]) -> Figure:
    """Gain against KL divergence, one point a policy and a faint one for each of its seeds.

    Args:
        ratings: Of the comparison.
        found: Its frontier.
        seeds: Numbers of the seeds, as they were asked for.
    """
    colour = colours(ratings.policies)
    points, shares = [], []
    for i, name in enumerate(ratings.policies):
        (x, *x_ends), (y, *y_ends) = entry(found.kl, i), entry(found.gain, i)
        if x is None or y is None:
            continue
        each = zip(seeds, found.kl_by_seed[i].tolist(), found.gain_by_seed[i].tolist(), strict=True)
        faint = [(f"{name}, seed {seed}", a, b) for seed, a, b in each if math.isfinite(a) and math.isfinite(b)]
        alike = len({(a, b) for _, a, b in faint}) < 2  # of the start, or of one seed
        share = finite(float(found.share[i]))
        told = "" if share is None else f"; on the line in {100 * share:.0f} % of the resamples"
        points.append(Point(name, x, y, _both(x_ends), _both(y_ends), colour[name], () if alike else faint, told))
        if share is not None:
            shares.append(f"{name} {100 * share:.0f} %")
    best = staircase([(one.x, one.y) for one in points if one.name in found.best])
    about = "What each policy gained, and how far it moved from the start for it."
    if any(one.faint for one in points):
        about += " Small: single seeds, each joined to its policy."
    if found.best:
        about += f" On the line: {listed(found.best)}; no other policy gains as much with as little KL divergence."
    if shares:
        about += f" Share of resamples in which that is so: {', '.join(shares)}."
    about += f" {ESTIMATORS.get(found.estimator, found.estimator)} One that ends in an arrow goes on."
    plane = Plane(
        x_name="KL(policy ‖ start), nats per answer",
        y_name=found.axis,
        path=best,
        path_name="best gain within a KL",
        onward=True,
        reference=0.5 if found.axis.startswith("win rate") else None,
        from_zero=True,
    )
    empty = "the KL divergence was not measured"
    return scatter_figure("kl-and-gain", "Gain by KL divergence", points, plane, about=about, wide=True, empty=empty)


def staircase(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The best gain within each KL divergence: level up to the next policy, as nothing between two of them is known."""
    path: list[tuple[float, float]] = []
    for x, y in sorted((max(x, 0.0), y) for x, y in corners):  # an estimate below 0 is one of 0
        if not path:
            path.append((x, y))
        elif y >= path[-1][1]:
            path += [(x, path[-1][1]), (x, y)]
    return path


def _both(pair: Sequence[float | None]) -> Ends:
    """An interval; None where there is none, and where it is a point, as nothing was estimated."""
    low, high = pair
    return None if low is None or high is None or low == high else (low, high)
