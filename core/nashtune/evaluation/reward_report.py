"""How well a reward model orders held-out answers, and how much of that is their length.

The score of an ensemble is the mean over its members. Standard errors and intervals are over prompts: rows whose prompt
ends in the same message are one cluster. A tie of scores is half right; answers of the same rank make no pair. Where a
label is soft, right is what agrees with it: with probability p that the better answer is better, a pair counts p where
the model says so and 1 - p where it says the opposite.

Legend: N = texts, L = lists, P = ordered pairs, K = members.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from nashtune.evaluation.clusters import bootstrap_interval, cluster_mean
from nashtune.evaluation.reliability import expected_calibration_error, reliability
from nashtune.evaluation.reward_scores import HeldOutScores, ordered_pairs

BUCKETS = 4
RESAMPLES = 2000
LEVEL = 0.95


def reward_report(held: HeldOutScores, prompts: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Everything that is measured, as plain values.

    Args:
        held: Scores of held-out pairs or ranked lists. In a list every ordered pair counts, and their mean is taken
            within the list.
        prompts: Of each row of the data.
        seed: Of the bootstrap.

    Returns:
        `lists`, `pairs`, `prompts`, `members`: how many. `accuracy`: share of pairs in which the better answer has the
        higher score, {mean, se, pairs}. `members_accuracy`: {min, mean, max, each}. `by_margin`: the same by quantiles
        of the distance between the scores; `by_length`: by quantiles of the better answer's extra tokens, and
        `by_longer`: where it is longer, shorter, as long. A range is without its upper end, except the last one.
        `longer_is_better`: accuracy of always preferring the longer answer (a tie counts one half), and by how much the
        model is better, with a bootstrap interval. `calibration` of sigmoid(difference of scores): `ece`, `log_loss`,
        `bins`. `agreement` of members (K > 1). `top_1`: share of lists whose best answer has the highest score
        (where lists have more than two answers).
    """
    pairs = ordered_pairs(held)
    cluster_P, count = _clusters([prompts[row] for row in pairs.row.tolist()])
    weight_P = pairs.weight.numpy()

    def mean(values: Tensor, where: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        inside = np.ones(len(weight_P), dtype=bool) if where is None else where
        return cluster_mean(values.numpy()[inside], weight_P[inside], cluster_P[inside]).as_dict()

    gap_P = pairs.gap.mean(-1)
    right_P, longer_P = _right(gap_P, pairs.p), _right(pairs.length.double(), pairs.p)
    each = [mean(_right(gap, pairs.p))["mean"] for gap in pairs.gap.unbind(-1)]
    above = (right_P - longer_P).numpy()
    low, high = bootstrap_interval(above, weight_P, cluster_P, seed=seed, resamples=RESAMPLES, level=LEVEL)
    report: dict[str, Any] = {
        "kind": "scores",
        "lists": len(torch.unique_consecutive(held.row)),
        "pairs": len(gap_P),
        "prompts": count,
        "members": pairs.gap.shape[1],
        "accuracy": mean(right_P),
        "members_accuracy": {"min": min(each), "mean": float(np.mean(each)), "max": max(each), "each": each},
        "by_margin": [
            {**edges, **mean(right_P, inside)} for edges, inside in quantile_buckets(gap_P.abs().numpy(), BUCKETS)
        ],
        "by_length": [
            {**edges, **mean(right_P, inside)}
            for edges, inside in quantile_buckets(pairs.length.double().numpy(), BUCKETS)
        ],
        "by_longer": {
            "longer": mean(right_P, pairs.length.numpy() > 0),
            "shorter": mean(right_P, pairs.length.numpy() < 0),
            "equal": mean(right_P, pairs.length.numpy() == 0),
        },
        "longer_is_better": {
            **mean(longer_P),
            "above": {**mean(torch.from_numpy(above)), "low": low, "high": high},
            "level": LEVEL,
            "resamples": RESAMPLES,
        },
        "calibration": calibration(gap_P, pairs.p),
    }
    if pairs.gap.shape[1] > 1:
        report["agreement"] = agreement(pairs.gap, pairs.weight)
    if report["pairs"] > report["lists"]:
        top_L, row_L = top_1(held)
        cluster_L, _ = _clusters([prompts[row] for row in row_L.tolist()])
        found = cluster_mean(top_L.numpy(), np.ones(len(top_L)), cluster_L).as_dict()
        report["top_1"] = {"mean": found["mean"], "se": found["se"], "lists": len(top_L)}
    return report


def comparison_report(held: HeldOutScores, prompts: Sequence[str]) -> dict[str, Any]:
    """The same of a model that reads both answers and names the better one.

    Args:
        held: Log-odds of the right label in both orders of each pair; a pair with one order alone is left out.
        prompts: Of each row of the data, which has two rows a pair.

    Returns:
        `pairs`, `prompts`: how many. `accuracy` of (p0 + p1)/2, where p0 is the probability of the better answer when
        it is shown first and p1 when it is shown second; `accuracy_first` and `accuracy_second` of p0 and p1 alone.
        `position_bias`: {`flips`: share of pairs whose verdict changes with the order, `first`: mean probability of
        the answer that is shown first, 1/2 without bias}. `calibration` as in `reward_report`.
    """
    pair, count = torch.unique_consecutive(held.row, return_counts=True)
    whole = torch.isin(held.row, pair[count == 2])
    odds_P2 = held.scores[whole, 0].reshape(-1, 2)
    row_P = held.row[whole].reshape(-1, 2)[:, 0]
    label_P = held.p_chosen[whole].reshape(-1, 2)[:, 0].nan_to_num(1.0)
    other_P = label_P < 0.5  # the other answer is the better one: where one comes first, the other comes second
    odds_P2 = torch.where(other_P.unsqueeze(-1), -odds_P2.flip(-1), odds_P2)
    label_P = torch.where(other_P, 1.0 - label_P, label_P)
    cluster_P, prompts_seen = _clusters([prompts[2 * row] for row in row_P.tolist()])
    equal_P = np.ones(len(row_P))

    def mean(values: Tensor) -> dict[str, Any]:
        return cluster_mean(values.double().numpy(), equal_P, cluster_P).as_dict()

    p_P2 = odds_P2.sigmoid()
    flips_P = (odds_P2[:, 0] * odds_P2[:, 1] < 0).double()
    return {
        "kind": "comparisons",
        "pairs": len(row_P),
        "prompts": prompts_seen,
        "accuracy": mean(_right(odds_P2.sum(-1), label_P)),  # (p0 + p1)/2 > 1/2 where the log-odds' sum is > 0
        "accuracy_first": mean(_right(odds_P2[:, 0], label_P)),
        "accuracy_second": mean(_right(odds_P2[:, 1], label_P)),
        "position_bias": {"flips": mean(flips_P), "first": mean((p_P2[:, 0] + 1 - p_P2[:, 1]) / 2)},
        "calibration": calibration(_log_odds_of_mean(odds_P2), label_P),
    }


def calibration(gap_P: Tensor, label_P: Tensor) -> dict[str, Any]:
    """Of sigmoid(gap): `ece`, `log_loss` in nats, `bins`. Every pair counts once.

    Args:
        gap_P: Log-odds that the better answer is better (P,).
        label_P: Probability that it is (P,).
    """
    p_P = gap_P.sigmoid()
    log_loss = -(label_P * logsigmoid(gap_P) + (1 - label_P) * logsigmoid(-gap_P)).mean()
    bins = reliability(p_P, label_P)
    return {"ece": expected_calibration_error(p_P, label_P), "log_loss": float(log_loss), "bins": bins}


def agreement(gap_PK: Tensor, weight_P: Tensor) -> dict[str, float | None]:
    """How far members say the same.

    Args:
        gap_PK: Differences of scores (P, K), K > 1.
        weight_P: Of each pair in means (P,).

    Returns:
        `decisions`: share of pairs on which two members decide alike, the mean over all two members (a tie agrees with
        a tie alone). `spread`: root of the mean variance (ddof 1) of the difference over members, over the standard
        deviation of the mean difference over pairs; None where that is 0.
    """
    members = gap_PK.shape[1]
    count_P = torch.stack([(gap_PK.sign() == way).sum(-1) for way in (-1, 0, 1)]).double()
    alike_P = (count_P * (count_P - 1)).sum(0) / (members * (members - 1))
    share_P = weight_P / weight_P.sum()
    mean_P = gap_PK.mean(-1)
    signal = float((share_P * (mean_P - (share_P * mean_P).sum()) ** 2).sum().sqrt())
    noise = float((share_P * gap_PK.var(-1, correction=1)).sum().sqrt())
    return {"decisions": float((share_P * alike_P).sum()), "spread": noise / signal if signal > 0 else None}


def top_1(held: HeldOutScores) -> tuple[Tensor, Tensor]:
    """Of each list, whether its best answer, or one of several, has the highest mean score (L,), and its row (L,).

    Where several have the highest score, the best ones get their share of them.
    """
    row_L, size_L = torch.unique_consecutive(held.row, return_counts=True)
    sizes = size_L.tolist()
    levels = torch.split(held.place if held.level is None else held.level, sizes)
    found = []
    for scores, level in zip(torch.split(held.scores.mean(-1), sizes), levels, strict=True):
        highest = scores == scores.max()
        found.append(highest[level == 0].sum().double() / highest.sum())
    return torch.stack(found), row_L


def quantile_buckets(values_P: NDArray[np.float64], count: int) -> list[tuple[dict[str, float], NDArray[np.bool_]]]:
    """Ranges with about as many values each, {from, to} and who is inside; fewer where many values are equal.

    A value on an edge is in the upper bucket, and the largest one in the last.
    """
    edges = np.unique(np.quantile(values_P, np.linspace(0.0, 1.0, count + 1)))
    if len(edges) == 1:
        edges = np.repeat(edges, 2)
    place_P = np.searchsorted(edges[1:-1], values_P, side="right")
    return [({"from": float(low), "to": float(high)}, place_P == i) for i, (low, high) in enumerate(pairwise(edges))]


def _right(gap_P: Tensor, label_P: Tensor) -> Tensor:
    """Agreement with the label that is to be expected."""
    return 0.5 * (1.0 + (2.0 * label_P - 1.0) * gap_P.sign())


def _log_odds_of_mean(odds_P2: Tensor) -> Tensor:
    """Log-odds of the mean of two probabilities, from their log-odds; finite where the probabilities round to 1."""
    return logsigmoid(odds_P2).logsumexp(-1) - logsigmoid(-odds_P2).logsumexp(-1)


def _clusters(names: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """A number from 0 for each different name, and how many there are."""
    known: dict[str, int] = {}
    numbers = [known.setdefault(name, len(known)) for name in names]
    return np.array(numbers, dtype=np.int64), len(known)
