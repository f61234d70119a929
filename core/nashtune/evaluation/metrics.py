"""Means over the pairs of an optimiser step or of an evaluation, on torchmetrics."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from nashtune.interfaces import LossOutput


def accuracy(reward_chosen: Tensor, reward_rejected: Tensor) -> Tensor:
    """1 where the chosen completion has the higher implicit reward, 1/2 on a tie (as at policy = reference), else 0."""
    return 0.5 * (1.0 + torch.sign(reward_chosen - reward_rejected))


class Means:
    """Weighted means by name; every rank must update the same names."""

    def __init__(self) -> None:
        self._metrics: dict[str, MeanMetric] = {}

    def update(self, output: LossOutput, count: int, *, paired: bool = True) -> None:
        """Add a micro-batch.

        Args:
            output: Values per pair; a scalar metric counts for every pair of the micro-batch.
            count: Pairs (or examples) in the micro-batch.
            paired: Whether reward_chosen[i] and reward_rejected[i] belong together; only then is there an accuracy.
        """
        values = {"loss": output.values.detach(), **output.metrics}
        if paired:
            values["accuracy"] = accuracy(output.reward_chosen, output.reward_rejected)
        values["reward_chosen"] = output.reward_chosen
        values["reward_rejected"] = output.reward_rejected
        for name, value in values.items():
            if name not in self._metrics:
                fresh = MeanMetric(nan_strategy="disable").to(value.device)
                fresh.set_dtype(torch.float64)
                self._metrics[name] = fresh
            metric = self._metrics[name]
            # expand instead of `weight=`: torchmetrics 1.9 drops the weight under nan_strategy="disable", and any other
            # strategy would hide a NaN.
            if value.numel():
                metric.update(value.double().expand(count) if value.ndim == 0 else value.double())

    def compute_and_reset(self) -> dict[str, float]:
        """The means (over all ranks), and start again."""
        means = {name: float(metric.compute()) for name, metric in self._metrics.items() if metric.update_count}
        for metric in self._metrics.values():
            metric.reset()
        if {"reward_chosen", "reward_rejected"} <= means.keys():
            means["margin"] = means["reward_chosen"] - means["reward_rejected"]
        return means
