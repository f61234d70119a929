"""What a reader of ratings must know, in sentences.

Legend: M = policies, C = pairs of policies, S = seeds, N = prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nashtune.comparison.judged import Judged
from nashtune.comparison.length_control import OVERLAP
from nashtune.comparison.nash_average import STRICT
from nashtune.comparison.ratings import Ratings
from nashtune.evaluation.estimate import Floats

FEW_SEEDS = 5
DECISIVE = 5.0
"""Log-odds by which a difference of one scale decides nearly everything: 150 to 1."""


def notes(
    judged: Judged, ratings: Ratings, rates_C: Floats, chains_MM: NDArray[np.bool_], overlap_C: Floats
) -> tuple[str, ...]:
    """One sentence each.

    Args:
        judged: The comparison.
        ratings: What was made of it, without notes.
        rates_C: Win rate of the first policy of each pair; NaN where it was never compared.
        chains_MM: Whether a policy has beaten another, directly or in a chain.
        overlap_C: How far the lengths of each pair's answers overlap.
    """
    return (
        *_resampling(judged),
        *_many(judged),
        *_unanswered(judged, rates_C),
        *_unbounded(judged, chains_MM),
        *_apart(judged, overlap_C),
        *_equal_lengths(ratings.length_controlled.scale),
        *_decisive(float(ratings.length_controlled.effect.value)),
        *_undetermined(ratings),
        *_beaten(ratings),
    )


def _resampling(judged: Judged) -> Iterable[str]:
    _, seeds, prompts = judged.p.shape
    if seeds == 1 and prompts == 1:
        yield "one seed and one prompt: nothing can be resampled, so there is no interval, and nothing is determined"
    elif seeds == 1:
        yield "one seed: intervals are over prompts alone, and do not say what another training would give"
    elif prompts == 1:
        yield "one prompt: intervals are over seeds alone, and do not say what another prompt would give"
    elif seeds < FEW_SEEDS:
        yield (
            f"{seeds} seeds: intervals are those of Student's t, wide, and may still be too "
            "short (those of two seeds held the truth in 87 to 95 of 100 simulated comparisons); shares of resamples, "
            "of the Nash average, cyclic share, circles and frontier, look surer than they are"
        )


def _many(judged: Judged) -> Iterable[str]:
    pairs, seeds, prompts = judged.p.shape
    if pairs < 2 or (seeds, prompts) == (1, 1):
        return
    if seeds == 1:
        how = "five tables in ten have one that does, and more where two trainings of one method differ"
    else:
        how = f"up to {'seven' if seeds == 2 else 'six'} tables in ten have one that does"
    yield (
        f"{pairs} win rates are shown, and each interval is for one at a time: some may exclude 1/2 by accident "
        f"(of six equal policies, with 15 win rates, {how})"
    )


def _unanswered(judged: Judged, rates_C: Floats) -> Iterable[str]:
    missing = int(judged.unanswered.sum())
    if missing:
        yield f"{missing} of {int(judged.asked.sum())} pairs of answers have no verdict; they count nowhere"
    apart = [
        f"{a} and {b}" for (a, b), rate in zip(combinations(judged.policies, 2), rates_C, strict=True) if np.isnan(rate)
    ]
    if apart:
        yield f"{', '.join(apart)} were never compared: no Nash average and no cyclicity without their win rate"


def _unbounded(judged: Judged, chains_MM: NDArray[np.bool_]) -> Iterable[str]:
    anchor = judged.anchor
    over, under = chains_MM[:, anchor], chains_MM[anchor]
    said = []
    for which, words in ((over & ~under, "won every comparison with the others"), (under & ~over, "lost every one")):
        names = [name for name, one in zip(judged.policies, which, strict=True) if one]
        if names:
            said.append(f"{', '.join(names)} {words}")
    if said:
        yield (
            f"Elo: {'; '.join(said)}: no finite rating fits best, so one imagined tie was added to every pair, "
            "and these ratings grow with the number of prompts"
        )


def _apart(judged: Judged, overlap_C: Floats) -> Iterable[str]:
    pairs = [
        f"{a} and {b}"
        for (a, b), overlap in zip(combinations(judged.policies, 2), overlap_C, strict=True)
        if overlap < OVERLAP  # NaN compares false
    ]
    if pairs:
        yield (
            f"length-controlled: answers of {', '.join(pairs)} differ too much in length (one is the longer nearly "
            "every time), so nothing is said of them at equal length, and means leave them out"
        )


def _decisive(length_effect: float) -> Iterable[str]:
    if abs(length_effect) > DECISIVE:  # NaN compares false
        yield (
            "length-controlled: length decides nearly everything for this judge, and what it would say of answers of "
            "equal length is a rough guess (in simulations off by up to 0.17)"
        )


def _equal_lengths(scale: float) -> Iterable[str]:
    if scale == 0:  # NaN compares false
        yield "length-controlled: all answers had equal length, so these are the plain win rates"


def _undetermined(ratings: Ratings) -> Iterable[str]:
    nash = ratings.nash
    if np.isnan(nash.weight.value).all():
        if not np.isnan(ratings.win_rate.value).any():
            yield "Nash average: the search for it failed on these win rates"
        return
    if nash.failed:
        yield (
            f"Nash average: the search for it failed in {nash.failed} of {ratings.resamples} resamples; intervals and "
            "shares are over the others"
        )
    if nash.determined or np.isnan(nash.share).any():
        return
    held = [name for name, weight in zip(ratings.policies, nash.weight.value, strict=True) if weight > STRICT]
    unsure = [name for name in held if name not in nash.sure]
    near = ratings.near[held[0]]
    if len(held) == 1 and near:
        why = f"{held[0]} is all of it, but its win rate{_plural(near)} over {', '.join(near)} may as well be 1/2"
    elif nash.sure and unsure:
        why = f"{_are(nash.sure)} surely in it, {_are(unsure)} not"
    elif nash.sure:
        why = "policies that are not in it are in that of many resamples"
    else:
        why = "no policy is surely in it"
    yield f"Nash average: not determined by these judgements: {why}"


def _beaten(ratings: Ratings) -> Iterable[str]:
    """The highest Elo, where it is that of a policy that loses to another."""
    elo = ratings.elo.rating.value
    if np.isnan(elo).all():
        return
    best = ratings.policies[int(np.nanargmax(elo))]
    if by := ratings.beaten_by[best]:
        yield f"{best} has the highest Elo, but {', '.join(by)} beat{'s' if len(by) == 1 else ''} it"


def _are(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _plural(names: Sequence[str]) -> str:
    return "s" if len(names) > 1 else ""
