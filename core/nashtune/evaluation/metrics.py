"""Means over the pairs of an optimiser step, of a logging interval or of an evaluation, on torchmetrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import SumMetric

from nashtune.interfaces import LossOutput
from nashtune.ranks import everyone, rank, world


def accuracy(reward_chosen: Tensor, reward_rejected: Tensor, p_chosen: Tensor | None = None) -> Tensor:
    """1 where the chosen completion has the higher implicit reward, 1/2 on a tie (as at policy = reference), else 0.

    With soft labels what is to be expected: p_chosen where it is 1 for hard ones, and 1 - p_chosen where it is 0.
    """
    sign = torch.sign(reward_chosen - reward_rejected)
    return 0.5 * (1.0 + (sign if p_chosen is None else (2.0 * p_chosen.to(sign.dtype) - 1.0) * sign))


COMPARED: Mapping[str, str] = {"pairs": "accuracy", "rollouts": "accuracy", "ranked": "best_over_worst"}
"""Kind of a batch -> what the comparison of `reward_chosen` and `reward_rejected` is called; none elsewhere."""

REWARDS = ("reward_chosen", "reward_rejected")


class Means:
    """Means by name, over everything that was added on all ranks; every rank must add the same names.

    Sums grow on the device, and nothing waits for it: `tensors` reduces them over the ranks in one call, and `read`
    then hands them to the host in one.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[SumMetric, SumMetric]] = {}
        self._one_sided: set[str] = set()  # names of which a step may have no value: of one kind of example alone

    def update(
        self,
        output: LossOutput,
        count: int,
        *,
        kind: str = "pairs",
        p_chosen: Tensor | None = None,
        tokens: int | None = None,
        counts: bool = True,
    ) -> None:
        """Add a pass.

        Args:
            output: Values per pair; a scalar metric counts for every pair of the pass.
            count: Pairs (or examples) in the pass.
            kind: Of the batch; where reward_chosen[i] and reward_rejected[i] belong together, there is an `accuracy`,
                of a ranked list `best_over_worst`.
            p_chosen: Soft labels of pairs.
            tokens: Completion tokens of the pass, where the loss is a mean over them.
            counts: False for borrowed rows, which only keep the ranks in step: their names are added and no value.
        """
        values = {"loss": output.values.detach(), **output.metrics}
        own: dict[str, Tensor] = {}
        if output.reward_chosen is not None and output.reward_rejected is not None:
            if kind in COMPARED:
                values[COMPARED[kind]] = accuracy(output.reward_chosen, output.reward_rejected, p_chosen)
            values |= dict(zip(REWARDS, (output.reward_chosen, output.reward_rejected), strict=True))
            if output.desirable is not None:
                own = dict(zip(REWARDS, (output.desirable, ~output.desirable), strict=True))
        for name, value in values.items():
            wide = value.detach().double()
            wide = wide.expand(count) if wide.ndim == 0 else wide
            if name in own:  # known on all ranks, also where this one's rows are borrowed
                self._one_sided.add(name)
            if not counts:
                wide = wide.new_zeros(0)
            elif name in own:  # summed under a mask: picking them out would ask the device how many they are
                self._add(name, wide.where(own[name], 0.0).sum(), own[name].double().sum())
                continue
            elif not wide.numel():
                self._one_sided.add(name)
            size = tokens if counts and name == "loss" and tokens is not None else wide.numel()
            # filled on the device: a number from the host would be copied there, and the host would wait
            self._add(name, wide.sum(), torch.full((), size, dtype=torch.float64, device=wide.device))

    def absorb(self, other: Means) -> None:
        """Add everything that was added to another, and empty that one."""
        for name, (total, number) in other._sums.items():
            if total.update_count:
                self._add(name, total.compute(), number.compute())
        other.reset()

    def _add(self, name: str, total: Tensor, number: Tensor) -> None:
        # Sum and count on their own: torchmetrics' MeanMetric drops `weight` under nan_strategy="disable", any
        # other strategy would hide a NaN, and a rank without one kind of example must still take part.
        if name not in self._sums:
            self._sums[name] = _sum(total), _sum(total)
        for metric, value in zip(self._sums[name], (total, number), strict=True):
            if metric.device != value.device:  # restored on the host, before the model moved
                metric.to(value.device)
            metric.update(value)

    def tensors(self) -> dict[str, Tensor]:
        """The means over all ranks, on the device (float64 scalars), of what has a value.

        Nothing waits for the device, but where names are of one kind of example alone: there it is asked which have
        none, for the mean of nothing is no number, and a running mean would never come back from it.
        """
        names, sums = self._reduced()
        asked = [number for number, name in enumerate(names) if name in self._one_sided]
        counts = sums[asked, 1].tolist() if asked else []
        none = {names[number] for number, count in zip(asked, counts, strict=True) if not count}
        return {name: pair[0] / pair[1] for name, pair in zip(names, sums, strict=True) if name not in none}

    def reset(self) -> None:
        """Start again."""
        for total, number in self._sums.values():
            total.reset()
            number.reset()

    def compute_and_reset(self) -> dict[str, float]:
        """As `read`, without a flag."""
        return self.read()[0]

    def read(self, flag: Tensor | None = None) -> tuple[dict[str, float], bool]:
        """Read everything and start again: one reduction over the ranks, one wait for the device.

        Args:
            flag: Asked along: 1 where a rank has something to say, else 0, on the device.

        Returns:
            The means over all ranks of what has a value, and whether the flag was up on any rank.
        """
        names, sums = self._reduced(flag)
        self.reset()
        pairs: list[list[float]] = sums.tolist() if len(sums) else []
        raised = flag is not None and pairs.pop()[0] != 0.0
        means = {name: total / count for name, (total, count) in zip(names, pairs, strict=True) if count}
        if set(REWARDS) <= means.keys():
            means["margin"] = means[REWARDS[0]] - means[REWARDS[1]]
        return means, raised

    def state_dict(self) -> dict[str, Any]:
        """What was added on each rank, as plain numbers. Waits for the device; collective."""
        names, own = self._own()
        return {"names": names, "ranks": everyone(own.tolist())} if names else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what was saved, perhaps nothing; on another number of ranks the first one holds all of it."""
        self._sums = {}
        if not state:
            return
        saved = torch.tensor(state["ranks"], dtype=torch.float64)
        own = saved[rank()] if len(saved) == world() else saved.sum(0) if rank() == 0 else torch.zeros_like(saved[0])
        for name, (total, number) in zip(state["names"], own, strict=True):
            self._add(name, total, number)

    def _own(self) -> tuple[list[str], Tensor]:
        """Names, and sum and count of each on this rank (names, 2)."""
        names = [name for name, (total, _) in self._sums.items() if total.update_count]
        sums = [torch.stack([part.compute() for part in self._sums[name]]) for name in names]
        return names, torch.stack(sums) if sums else torch.zeros(0, 2, dtype=torch.float64)

    def _reduced(self, flag: Tensor | None = None) -> tuple[list[str], Tensor]:
        """Names, and sum and count of each over all ranks (names, 2), in one reduction; a flag's row comes last."""
        names, sums = self._own()
        if flag is not None:
            row = flag.double().expand(1, 2)
            sums = torch.cat([sums.to(row.device), row])
        if len(sums) and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        return names, sums


def _sum(like: Tensor) -> SumMetric:
    metric = SumMetric(nan_strategy="disable", sync_on_compute=False).to(like.device)
    metric.set_dtype(torch.float64)
    return metric
