"""Means over the pairs of an optimiser step or of an evaluation, on torchmetrics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import SumMetric

from nashtune.interfaces import LossOutput


def accuracy(reward_chosen: Tensor, reward_rejected: Tensor, p_chosen: Tensor | None = None) -> Tensor:
    """1 where the chosen completion has the higher implicit reward, 1/2 on a tie (as at policy = reference), else 0.

    With soft labels what is to be expected: p_chosen where it is 1 for hard ones, and 1 - p_chosen where it is 0.
    """
    sign = torch.sign(reward_chosen - reward_rejected)
    return 0.5 * (1.0 + (sign if p_chosen is None else (2.0 * p_chosen.to(sign.dtype) - 1.0) * sign))


COMPARED: Mapping[str, str] = {"pairs": "accuracy", "rollouts": "accuracy", "ranked": "best_over_worst"}
"""Kind of a batch -> what the comparison of `reward_chosen` and `reward_rejected` is called; none elsewhere."""


class Means:
    """Means by name, over everything that was added on all ranks; every rank must add the same names."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[SumMetric, SumMetric]] = {}

    def update(
        self,
        output: LossOutput,
        count: int,
        *,
        kind: str = "pairs",
        p_chosen: Tensor | None = None,
        tokens: int | None = None,
    ) -> None:
        """Add a micro-batch.

        Args:
            output: Values per pair; a scalar metric counts for every pair of the micro-batch.
            count: Pairs (or examples) in the micro-batch.
            kind: Of the batch; where reward_chosen[i] and reward_rejected[i] belong together, there is an `accuracy`,
                of a ranked list `best_over_worst`.
            p_chosen: Soft labels of pairs.
            tokens: Completion tokens of the micro-batch, where the loss is a mean over them.
        """
        values = {"loss": output.values.detach(), **output.metrics}
        if output.reward_chosen is not None and output.reward_rejected is not None:
            if kind in COMPARED:
                values[COMPARED[kind]] = accuracy(output.reward_chosen, output.reward_rejected, p_chosen)
            values["reward_chosen"] = output.reward_chosen
            values["reward_rejected"] = output.reward_rejected
        for name, value in values.items():
            # Sum and count on their own: torchmetrics' MeanMetric drops `weight` under nan_strategy="disable", any
            # other strategy would hide a NaN, and a rank without one kind of example must still take part.
            if name not in self._sums:
                self._sums[name] = _sum(value), _sum(value)
            total, number = self._sums[name]
            expanded = value.detach().double().expand(count) if value.ndim == 0 else value.detach().double()
            total.update(expanded.sum())
            number.update(float(tokens if name == "loss" and tokens is not None else expanded.numel()))

    def compute_and_reset(self) -> dict[str, float]:
        """The means (over all ranks), and start again."""
        means = {}
        for name, (total, number) in self._sums.items():
            if total.update_count and (count := float(number.compute())):
                means[name] = float(total.compute()) / count
            total.reset()
            number.reset()
        if {"reward_chosen", "reward_rejected"} <= means.keys():
            means["margin"] = means["reward_chosen"] - means["reward_rejected"]
        return means


def _sum(like: Tensor) -> SumMetric:
    metric = SumMetric(nan_strategy="disable").to(like.device)
    metric.set_dtype(torch.float64)
    return metric
