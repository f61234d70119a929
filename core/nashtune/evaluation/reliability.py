"""Whether a preference that is claimed with probability p is right in a share p of the cases.

A pair is looked at in both orders, (p, label) and (1 - p, 1 - label): with the better answer always first every label
would be 1, and a calibrated model would look as one that doubts too much.

Legend: P = pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import BinaryCalibrationError

BINS = 10
"""Of equal width, between 1/2 and 1."""


def expected_calibration_error(p_P: Tensor, label_P: Tensor) -> float:
    """Mean distance between what is claimed and what is so, over bins by probability, weighted by their pairs.

    Args:
        p_P: Claimed probability that the first answer is better, in [0, 1] (P,).
        label_P: Probability that it is, 1 or 0 where labels are certain (P,).
    """
    # Without its validation, which wants labels of 0 and 1 and works with any. The pairs of all ranks are here already,
    # on the one that reports: asking the others for theirs would wait for an answer that never comes.
    metric = BinaryCalibrationError(n_bins=2 * BINS, norm="l1", validate_args=False, sync_on_compute=False)
    metric.set_dtype(torch.float64)
    metric.update(torch.cat([p_P, 1 - p_P]), torch.cat([label_P, 1 - label_P]))
    return float(metric.compute())


def reliability(p_P: Tensor, label_P: Tensor) -> list[dict[str, Any]]:
    """The bins, by the probability of the answer that is preferred: `from`, `to`, `pairs`, `claimed`, `right`.

    Args:
        p_P: Claimed probability that the first answer is better, in [0, 1] (P,).
        label_P: Probability that it is (P,).

    Returns:
        Bins with pairs in them. `claimed` is their mean probability and `right` the share in which the preferred answer
        is the better one; at p = 1/2 neither is preferred, which is right by one half.
    """
    claimed_P = torch.maximum(p_P, 1 - p_P)
    right_P = torch.where(p_P > 0.5, label_P, 1 - label_P).masked_fill(p_P == 0.5, 0.5)
    edges = torch.linspace(0.5, 1.0, BINS + 1, dtype=torch.float64)
    bin_P = torch.bucketize(claimed_P, edges[1:-1], right=True)
    found = []
    for i in range(BINS):
        inside = bin_P == i
        if bool(inside.any()):
            means = {"claimed": float(claimed_P[inside].mean()), "right": float(right_P[inside].mean())}
            found.append({"from": float(edges[i]), "to": float(edges[i + 1]), "pairs": int(inside.sum()), **means})
    return found
