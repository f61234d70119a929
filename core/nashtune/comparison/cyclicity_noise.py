"""What noise alone makes of a cyclic share: tables drawn from the scores that fit the win rates best.

Resamples of the judgements cannot tell. A pair that was won every time is won every time in all of them, although the
same policies would lose some comparison of another set of prompts; its one imagined tie bends log-odds that scores
explain exactly; and single answers count up to three times. So the share that was found is compared with shares of
tables of win rates that are drawn anew: the Bradley-Terry model's, with the same number of comparisons and the same
rule for pairs without a loss.

How much a table moves around its model is taken from the judgements: the variance of the win rates, by prompts and by
seeds, over that of as many independent certain verdicts (the dispersion of a quasi-binomial model). It is taken from
what scores cannot explain, as other errors make no circles: a policy whose trainings differ in strength moves along its
score. The variance of a mean over both seeds and prompts is that between seeds plus that between prompts, less that of
single answers, which is in both. It is itself a guess from few seeds or prompts, with as many degrees of freedom as
deviations; so every table draws its own, by the chi-squared distribution of that many.

Where Elo needs an imagined tie, scores of infinite differences fit best, and a whole one would pull them far nearer to
each other than policies are that won everything. It counts little here.

Legend: M = policies, C = M (M - 1) / 2 pairs in the order of itertools.combinations, S = seeds, N = prompts,
R = tables.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from nashtune.comparison.cyclicity import cyclic_part, log_odds, squares
from nashtune.comparison.elo import NEVER, POINTS
from nashtune.evaluation.estimate import Floats

FAINT = 0.01
"""What an imagined tie counts in the fit."""
LEAST, MOST = 1e-9, 1 - 1e-9
"""Of dispersions, and of correlations of the verdicts of one pair: at 0 and 1 the distributions have no parameters."""


def noise_share(p_CSN: Floats, A_MM: Floats, rating_M: Floats, *, tables: int, seed: int) -> tuple[float, float]:
    """What policies with one score each would show, in the mean and how often at least as much as was found.

    Compared are the squares of cyclic parts, each over those of the log-odds that were found: the fitted scores
    have taken in noise of their own, so the tables' log-odds are too large where policies are about equal.

    Args:
        p_CSN: P(first > second), NaN where there was no answer.
        A_MM: Log-odds of the win rates, by `log_odds`.
        rating_M: Elo ratings of the policies, with faint imagined ties.
        tables: R.
        seed: Of the draws.

    Returns:
        The mean share, at most 1, and how often it is that of A_MM or more; NaN where log-odds are unknown or all 0, or
        no tables are to be drawn.
    """
    policies = len(rating_M)
    whole = float(squares(A_MM[None])[0])
    if np.isnan(rating_M).any() or not whole > 0 or not tables:  # NaN compares false
        return float("nan"), float("nan")
    if policies < 3:
        return 0.0, 1.0  # two policies have no circle
    first, second = np.triu_indices(policies, 1)
    rates_C = np.clip(expit((rating_M[first] - rating_M[second]) / POINTS), NEVER, 1 - NEVER)
    counts_C = (~np.isnan(p_CSN)).sum(axis=(1, 2)).astype(np.float64)
    draws = np.random.default_rng([seed, 1])
    dispersion, freedom = dispersion_of(p_CSN, rates_C)
    dispersion_R = dispersion * freedom / draws.chisquare(freedom, tables)
    drawn_RC = drawn_rates(rates_C, counts_C, dispersion_R, draws)
    A_RMM = log_odds(drawn_RC, np.broadcast_to(counts_C, drawn_RC.shape), policies)
    drawn_R, seen = squares(cyclic_part(A_RMM)), squares(cyclic_part(A_MM[None]))[0]
    return float(np.minimum(drawn_R / whole, 1.0).mean()), float((drawn_R >= seen).mean())


def drawn_rates(rates_C: Floats, counts_C: Floats, dispersion_R: Floats, draws: np.random.Generator) -> Floats:
    """Win rates (R, C) of tables with these means, and with dispersion times the variance of independent verdicts.

    Below 1, of more verdicts; above, of verdicts of one pair that are correlated: a beta-binomial distribution.

    Args:
        rates_C: Their means, above 0 and below 1.
        counts_C: How many comparisons each pair has.
        dispersion_R: One number a table, at least 0.
        draws: Where from.
    """
    less_R1 = np.clip(dispersion_R, LEAST, 1.0)[:, None]
    games_RC = np.rint(counts_C / less_R1)
    correlation_RC = np.clip((dispersion_R[:, None] - 1) / np.maximum(counts_C - 1, 1.0), 0.0, MOST)
    pseudo_RC = 1 / np.maximum(correlation_RC, LEAST) - 1
    shaken_RC = draws.beta(rates_C * pseudo_RC, (1 - rates_C) * pseudo_RC)
    means_RC = np.where(correlation_RC > LEAST, shaken_RC, rates_C)
    found: Floats = draws.binomial(games_RC.astype(np.int64), means_RC) / games_RC
    return found


def dispersion_of(p_CSN: Floats, rates_C: Floats) -> tuple[float, float]:
    """Variance of the win rates in what scores do not explain, over that of independent verdicts; its freedom.

    Args:
        p_CSN: P(first > second), NaN where there was no answer.
        rates_C: Win rates by the scores of three policies or more.
    """
    pairs, seeds, prompts = p_CSN.shape
    held_CSN = ~np.isnan(p_CSN)
    counts_C = held_CSN.sum(axis=(1, 2))
    even_C = rates_C * (1 - rates_C)
    means_C = np.where(held_CSN, p_CSN, 0.0).sum(axis=(1, 2)) / counts_C
    off_CSN = np.where(held_CSN, p_CSN - means_C[:, None, None], 0.0)
    off_CSN /= np.sqrt(counts_C * even_C)[:, None, None]  # together the mean's error, in those of independent verdicts
    free_CC = _not_scores(counts_C * even_C)
    mixed_C = (means_C > NEVER) & (means_C < 1 - NEVER)
    if not mixed_C.any():
        return 1.0, float(counts_C.sum())  # nothing varies: taken for independent verdicts
    x_CSN = (free_CC @ off_CSN.reshape(pairs, -1)).reshape(off_CSN.shape)

    # pairs that are nearly sure count little, and not at all without a loss: whether there was one is an accident
    weigh_C = np.where(mixed_C, even_C, 0.0)
    own_CSN = x_CSN - x_CSN.mean(axis=2, keepdims=True) - x_CSN.mean(axis=1, keepdims=True)
    own_CSN += x_CSN.mean(axis=(1, 2), keepdims=True)
    of_seeds, of_prompts, of_answers = (
        float(weigh_C @ (part**2).reshape(pairs, -1).sum(axis=1)) * factor
        for part, factor in (
            (x_CSN.sum(axis=2), seeds / max(1, seeds - 1)),
            (x_CSN.sum(axis=1), prompts / max(1, prompts - 1)),
            (own_CSN, seeds * prompts / max(1, (seeds - 1) * (prompts - 1))),
        )
    )
    weighted_CC = free_CC * np.sqrt(weigh_C[:, None] * weigh_C)
    whole = float(np.trace(weighted_CC))
    directions = whole**2 / float((weighted_CC**2).sum())
    # errors that are those of scores leave less for circles, down to nothing by accident where few pairs had a loss:
    # so at least what single verdicts vary by, which is 1 for certain ones
    singly = (weigh_C @ (off_CSN**2).reshape(pairs, -1).sum(axis=1)) / (weigh_C @ (means_C * (1 - means_C) / even_C))
    if seeds == 1:
        found, freedom = of_prompts, (prompts - 1) * directions
    elif prompts == 1:
        found, freedom = of_seeds, (seeds - 1) * directions
    else:
        found = max(of_seeds, of_answers) + max(of_prompts, of_answers) - of_answers
        # two seeds may agree by accident: their variance is no surer than if it were that of single answers
        unsure = max(of_seeds**2, (of_seeds**2 + of_answers**2) / 2) / (seeds - 1) + of_prompts**2 / (prompts - 1)
        freedom = found**2 * directions / unsure if unsure > 0 else 1.0
    return max(found / whole, float(singly)), freedom


def _not_scores(weight_C: Floats) -> Floats:
    """Projection (C, C) of win rates, in standard errors, onto what no small change of scores does to them.

    Args:
        weight_C: Inverse variances of the log-odds.
    """
    policies = round((1 + np.sqrt(1 + 8 * len(weight_C))) / 2)
    first, second = np.triu_indices(policies, 1)
    by_score_CM = (np.eye(policies)[first] - np.eye(policies)[second]) * np.sqrt(weight_C)[:, None]
    along_CM, *_ = np.linalg.svd(by_score_CM, full_matrices=False)
    along_CM = along_CM[:, : policies - 1]  # a number that is added to all scores changes nothing
    found: Floats = np.eye(len(weight_C)) - along_CM @ along_CM.T
    return found
