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
    """Means by name, over everything that was added on all ranks; every rank must add the same names.

    Sums grow on the device, and nothing waits for it: `tensors` reduces them over the ranks in one call, and
    `compute_and_reset` then reads them in one.
    """

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
        """Add a pass.

        Args:
            output: Values per pair; a scalar metric counts for every pair of the pass.
            count: Pairs (or examples) in the pass.
            kind: Of the batch; where reward_chosen[i] and reward_rejected[i] belong together, there is an `accuracy`,
                of a ranked list `best_over_worst`.
            p_chosen: Soft labels of pairs.
            tokens: Completion tokens of the pass, where the loss is a mean over them.
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
            # filled on the device: a number from the host would be copied there, and the host would wait
            size = tokens if name == "loss" and tokens is not None else expanded.numel()
            number.update(torch.full((), size, dtype=torch.float64, device=value.device))

    def tensors(self) -> dict[str, Tensor]:
        """The means over all ranks, on the device (float64 scalars); NaN where no value was in what was added."""
        reduced = self._reduced()
        return {name: pair[0] / pair[1] for name, pair in reduced.items()}

    def reset(self) -> None:
        """Start again."""
        for total, number in self._sums.values():
            total.reset()
            number.reset()

    def compute_and_reset(self) -> dict[str, float]:
        """The means over all ranks, of everything that has a value, and start again. Waits for the device once."""
        reduced = self._reduced()
        self.reset()
        if not reduced:
            return {}
        pairs = torch.stack(list(reduced.values())).tolist()
        means = {name: total / count for name, (total, count) in zip(reduced, pairs, strict=True) if count}
        if {"reward_chosen", "reward_rejected"} <= means.keys():
            means["margin"] = means["reward_chosen"] - means["reward_rejected"]
        return means

    def _reduced(self) -> dict[str, Tensor]:
        """Sum and count of each name over all ranks (2,), in one reduction."""
        names = [name for name, (total, _) in self._sums.items() if total.update_count]
        if not names:
            return {}
        own = torch.stack([torch.stack([part.compute() for part in self._sums[name]]) for name in names])
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(own)
        return dict(zip(names, own.unbind(), strict=True))


def _sum(like: Tensor) -> SumMetric:
    metric = SumMetric(nan_strategy="disable", sync_on_compute=False).to(like.device)
    metric.set_dtype(torch.float64)
    return metric
