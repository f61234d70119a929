"""Who beats whom: win rates, ratings and circles of a comparison, from its ratings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nashtune.comparison.judged import START
from nashtune.comparison.ratings import Ratings
from nashtune.evaluation.estimate import Estimate
from nashtune.html.drawing import Figure
from nashtune.html.intervals import Row, interval_figure
from nashtune.html.matrix import DIAGONAL, Matrix, rate_cell
from nashtune.html.words import finite, fixed, interval, listed, number

GREY = 7  # of the start, which nobody has trained
FEW = 3
"""Seeds from which on intervals leave the truth out about as often as they say."""


def colours(policies: Sequence[str]) -> dict[str, int]:
    """A colour for each policy, the same in all figures."""
    trained = [name for name in policies if name != START]
    return {name: trained.index(name) % GREY if name != START else GREY for name in policies}


def ranked(ratings: Ratings) -> list[int]:
    """Numbers of the policies, best Elo first; those without one come last."""
    elo = ratings.elo.rating.value
    return sorted(range(len(ratings.policies)), key=lambda i: (math.isnan(elo[i]), -elo[i]))


def win_matrices(ratings: Ratings) -> list[Matrix]:
    """Win rates, and win rates as they would be for answers of equal length."""
    over = " and ".join(ratings.resampled)
    how = f"{100 * ratings.level:g} % bootstrap intervals over {over}" if over else "no intervals: nothing to resample"
    note = f"{ratings.comparisons} pairs of answers, each judged in both orders; ties count ½; {how}."
    about = f"Mean P(row's answer is better than the column's).{_bold(ratings)}"
    controlled = ratings.length_controlled
    effect = controlled.effect
    ends = interval(finite(float(effect.low)), finite(float(effect.high)))
    judge = "A logistic regression takes out what length explains."
    if math.isfinite(effect.value):
        judge = (
            f"A logistic regression takes out what length explains: being longer by {number(controlled.scale)} tokens "
            f"adds {fixed(float(effect.value), 2, sign=True)}{f' ({ends})' if ends else ''} to the log-odds of being "
            "preferred."
        )
    return [
        _matrix("wins", "Win rates", about, ratings, ratings.win_rate, ratings.mean_win_rate, note),
        _matrix(
            "wins-equal-length",
            "Length-controlled win rates",
            judge,
            ratings,
            controlled.win_rate,
            controlled.mean,
            missing="lengths overlap too little",
        ),
    ]


def _bold(ratings: Ratings) -> str:
    """What a bold cell means, and how many are bold by chance as far as that is known."""
    if not ratings.resampled:
        return " Without intervals nothing is told apart, and no cell is bold."
    said = " Bold: the interval leaves ½ out."
    pairs = len(ratings.policies) * (len(ratings.policies) - 1) // 2
    if pairs < 2:
        return said
    some = f"{number((1 - ratings.level) * pairs, 2)} would be bold by chance"
    if ratings.seeds == 1:
        return f"{said} Of {pairs} pairs of these very weights, were they equally good, about {some}."
    if ratings.seeds < FEW:
        return f"{said} Among many cells some are bold by chance."
    return f"{said} Of {pairs} pairs of equal policies about {some}."


def _matrix(
    name: str,
    title: str,
    about: str,
    ratings: Ratings,
    rate: Estimate,
    mean: Estimate,
    note: str = "",
    *,
    missing: str = "nothing was judged",
) -> Matrix:
    order = ranked(ratings)
    names = [ratings.policies[i] for i in order]
    cells = [
        [
            *(
                DIAGONAL
                if i == j
                else rate_cell(*entry(rate, i, j), f"{ratings.policies[i]} over {ratings.policies[j]}", missing)
                for j in order
            ),
            rate_cell(*entry(mean, i), f"{ratings.policies[i]} over all others", missing),
        ]
        for i in order
    ]
    return Matrix(name, title, about, names, cells, ["all others"], note)


def entry(estimate: Estimate, *place: int) -> tuple[float | None, float | None, float | None]:
    """Value, low and high of one entry; None for NaN."""
    value, low, high = (finite(float(part[place])) for part in (estimate.value, estimate.low, estimate.high))
    return value, low, high


def rating_figures(ratings: Ratings) -> list[Figure]:
    """Mean win rates, with and without length, Elo and Nash average."""
    rows = {
        "mean": _rows(ratings, ratings.mean_win_rate),
        "equal-length": _rows(ratings, ratings.length_controlled.mean),
        "elo": _rows(ratings, ratings.elo.rating),
        "nash": _rows(ratings, ratings.nash.weight),
        "nash-value": _rows(ratings, ratings.nash.value),
    }
    elo = (
        f"Bradley–Terry maximum likelihood: 400 points are odds of 10 to 1. The scale is fixed by {ratings.anchor}, "
        "which has 1000 and no interval."
    )
    if ratings.elo.imagined:
        elo += " One imagined tie was added to every pair: without it the likelihood has no finite maximum."
    return [
        interval_figure(
            "rating-mean",
            "Mean win rate",
            rows["mean"],
            about="Over all other policies, each counting the same.",
            unit="mean win rate",
            reference=0.5,
        ),
        interval_figure(
            "rating-equal-length",
            "Length-controlled win rate",
            rows["equal-length"],
            about="The same, as it would be for answers of equal length.",
            unit="win rate",
            reference=0.5,
        ),
        interval_figure("rating-elo", "Elo", rows["elo"], about=elo, unit="Elo", places=0, reference=1000.0),
        interval_figure(
            "rating-nash",
            "Nash average" if ratings.nash.determined else "Nash average: not determined",
            rows["nash"],
            about=f"Probability of each policy in the maximum-entropy Nash mixture.{_mixture(ratings)}",
            unit="probability",
            bars=True,
            pale=not ratings.nash.determined,
            within=(0.0, 1.0),
            empty="no Nash average: some policies were never compared",
        ),
        interval_figure(
            "rating-nash-value",
            "Win rate over the Nash mixture",
            rows["nash-value"],
            about="½ for the policies in the mixture, at most ½ for all.",
            unit="win rate",
            reference=0.5,
            empty="no Nash average: some policies were never compared",
        ),
    ]


def _rows(ratings: Ratings, estimate: Estimate) -> list[Row]:
    colour = colours(ratings.policies)
    found = []
    for i in ranked(ratings):
        value, low, high = entry(estimate, i)
        if value is not None:
            if low == high == value:  # the fixed point of a scale, or a mixture that is the same in all resamples
                low = high = None
            found.append(Row(ratings.policies[i], value, low, high, colour[ratings.policies[i]]))
    return found


def _mixture(ratings: Ratings) -> str:
    """What the judgements say of the Nash mixture where they do not determine it."""
    if ratings.nash.determined:
        return ""
    sure = f"only {listed(ratings.nash.sure)} is surely in it" if ratings.nash.sure else "no policy is surely in it"
    return f" These judgements do not determine it: {sure}, and the bars are one mixture of many that fit."
