"""Policies without a single usable answer: the others are rated without them, and they get NaN.

Legend: M = policies, S = seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nashtune.comparison.judged import Judged
from nashtune.comparison.ratings import Frontier, Ratings
from nashtune.evaluation.estimate import Estimate, Floats


def with_absent(found: Ratings, judged: Judged, rated: Sequence[int]) -> Ratings:
    """The ratings of all policies of a comparison, from those of the policies that could be rated.

    Args:
        found: Ratings of `judged.only(rated)`.
        judged: The whole comparison.
        rated: Numbers of the rated policies, rising.
    """
    m = len(judged.policies)

    def row(part: Estimate) -> Estimate:
        return Estimate(*(_rows(values, rated, m) for values in (part.value, part.low, part.high)))

    def square(part: Estimate) -> Estimate:
        return Estimate(*(_square(values, rated, m) for values in (part.value, part.low, part.high)))

    def moved(part: Frontier) -> Frontier:
        kl_by_seed, gain_by_seed = _rows(part.kl_by_seed, rated, m), _rows(part.gain_by_seed, rated, m)
        share = _rows(part.share, rated, m)
        kl, gain = row(part.kl), row(part.gain)
        return replace(part, kl=kl, gain=gain, kl_by_seed=kl_by_seed, gain_by_seed=gain_by_seed, share=share)

    controlled = found.length_controlled
    missing = [] if judged.absent is None else np.flatnonzero(judged.absent.all(axis=1)).tolist()
    names = ", ".join(name for i, name in enumerate(judged.policies) if i not in (*rated, *missing))
    return replace(
        found,
        policies=judged.policies,
        unanswered=int(judged.unanswered.sum()),
        win_rate=square(found.win_rate),
        mean_win_rate=row(found.mean_win_rate),
        hard_win_rate=row(found.hard_win_rate),
        above=_square(found.above, rated, m),
        length_controlled=replace(
            controlled,
            win_rate=square(controlled.win_rate),
            mean=row(controlled.mean),
            tokens=row(controlled.tokens),
            overlap=_square(controlled.overlap, rated, m),
        ),
        elo=replace(found.elo, rating=row(found.elo.rating)),
        nash=replace(
            found.nash,
            weight=row(found.nash.weight),
            value=row(found.nash.value),
            share=_rows(found.nash.share, rated, m),
        ),
        frontier=found.frontier and moved(found.frontier),
        notes=(*([f"{names}: no usable answer, so there is nothing to rate"] if names else []), *found.notes),
    )


def _rows(values: Floats, rated: Sequence[int], policies: int) -> Floats:
    """(M, ...) with NaN in the other rows."""
    whole = np.full((policies, *values.shape[1:]), np.nan)
    whole[list(rated)] = values
    return whole


def _square(values: Floats, rated: Sequence[int], policies: int) -> Floats:
    """(M, M) with NaN in the other rows and columns."""
    return _rows(_rows(values, rated, policies).T, rated, policies).T
