"""Policies of a comparison that beat each other in turn, in words."""

from __future__ import annotations

import math

from nashtune.comparison.ratings import Ratings
from nashtune.html.comparison_figures import entry
from nashtune.html.words import finite, fixed, interval, listed


def cyclic(ratings: Ratings) -> str:
    """How much of the win rates a single score per policy leaves unexplained, in sentences."""
    found = ratings.cyclicity
    share, low, high = entry(found.share)
    if share is None:
        return "The cyclic share is not known: some policies were never compared."
    ends = interval(low, high, 3)
    triples = f"{found.triples} triple{'' if found.triples == 1 else 's'} of policies"
    noise = "" if finite(found.noise) is None else f"; noise of this size makes {fixed(found.noise, 3)} by itself"
    said = "" if circular(ratings) else " That is no sign of circles."
    return (
        f"One score per policy (Bradley–Terry) explains all of the log-odds but a share of {fixed(share, 3)}"
        f"{f' ({ends})' if ends else ''}{noise}{_chance(found.chance)}.{said} Of "
        f"{triples}, {len(found.cycles) or 'none'} beat each other in a circle in {100 * ratings.level:g} % of the "
        "resamples or more."
    )


def circular(ratings: Ratings) -> bool:
    """Whether the cyclic share is more than noise alone makes; never where that is not known."""
    return ratings.cyclicity.chance <= 1 - ratings.level  # NaN compares false


def _chance(chance: float) -> str:
    """How often noise alone makes such a share; "" where it is not known."""
    return f" in the mean, and a share as large as this one in {100 * chance:.0f} %" if math.isfinite(chance) else ""


def cycles(ratings: Ratings) -> list[str]:
    """Each circle of three in words."""
    found = []
    for one in ratings.cyclicity.cycles:
        ring = [*one.policies, one.policies[0]]
        steps = [f"{a} beats {b} ({fixed(rate, 2)})" for a, b, rate in zip(ring, ring[1:], one.rates, strict=False)]
        found.append(f"{listed(steps)}: in {100 * one.confidence:.0f} % of the resamples")
    return found
