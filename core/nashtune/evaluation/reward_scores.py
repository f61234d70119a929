"""What a reward or preference model said of held-out rows, collected over micro-batches and ranks, on torchmetrics.

Legend: N = texts, B = pairs, L = ranked lists, K = members of an ensemble, P = ordered pairs of texts of one list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from nashtune.interfaces import LossOutput, TokenBatch

COLUMNS = ("row", "place", "length", "level", "p_chosen", "scores")


@dataclass(frozen=True, kw_only=True)
class HeldOutScores:
    """Held-out texts, ordered by row and place, on the CPU.

    Args:
        row: Row of the data that each text belongs to (N,). Of a comparison: number of the pair.
        place: Its place in its list, 0 for the best (N,). Of a comparison: 0 where the better answer was shown first.
        length: Tokens of the text as the model reads it (N,).
        p_chosen: Probability that the first of a pair is better (N,); NaN where the label is certain.
        scores: By each member, float64 (N, K). Of a comparison: log-odds of the label (N, 1).
        level: Its rank in its list, 0 for the best, the same where none is better (N,); None: its place.
        comparisons: Whether these are comparisons.
    """

    row: Tensor
    place: Tensor
    length: Tensor
    p_chosen: Tensor
    scores: Tensor
    level: Tensor | None = None
    comparisons: bool = False

    def rescaled(self, gain: Sequence[float], bias: Sequence[float]) -> HeldOutScores:
        """With gain * score + bias of each member in place of its score."""
        gain_K, bias_K = (torch.tensor(list(values), dtype=torch.float64) for values in (gain, bias))
        return replace(self, scores=gain_K * self.scores + bias_K)


@dataclass(frozen=True, kw_only=True)
class OrderedPairs:
    """Every two texts of a list one of which is better, this one first; of a soft label, the one that rather is.

    Args:
        row: Row of the data (P,).
        gap: Score of the better minus that of the worse, by each member (P, K).
        length: Tokens of the better minus those of the worse (P,). The prompt is in both and drops out.
        weight: 1 over the pairs of the list, so that each list counts once (P,).
        p: Probability that the better one is better, at least 1/2; 1 where the label is certain (P,).
    """

    row: Tensor
    gap: Tensor
    length: Tensor
    weight: Tensor
    p: Tensor


class HeldOut:
    """Collects scores; every rank takes part in `compute_and_reset`."""

    def __init__(self, *, comparisons: bool) -> None:
        self._comparisons = comparisons
        self._metric = _Columns()

    def update(self, batch: TokenBatch, output: LossOutput) -> None:
        """Add a micro-batch.

        Args:
            batch: Token ids.
            output: With `scores`, or, for comparisons, with the log-probs of right and wrong label as rewards.
        """
        length_N = batch.attention_mask.sum(1)
        if self._comparisons:
            assert output.reward_chosen is not None and output.reward_rejected is not None
            columns = (batch.rows // 2, batch.rows % 2, length_N.chunk(2)[0], batch.rows % 2, batch.p_chosen)
            self._metric.update(*columns, (output.reward_chosen - output.reward_rejected).unsqueeze(-1))
            return
        assert output.scores is not None, "a loss that reads scores gives them back"
        if batch.kind == "ranked":
            assert batch.sizes is not None, "a ranked batch carries the sizes of its lists"
            size_L = batch.sizes
        else:
            size_L = torch.full_like(batch.rows, 2)
            length_N = torch.stack(length_N.chunk(2), dim=1).flatten()  # as scores are: both sides of a pair together
        row_N = batch.rows.repeat_interleave(size_L)
        place_N = torch.arange(len(row_N), device=row_N.device) - (size_L.cumsum(0) - size_L).repeat_interleave(size_L)
        p_N = None if batch.p_chosen is None else batch.p_chosen.repeat_interleave(size_L)
        level_N = place_N if batch.levels is None else batch.levels
        self._metric.update(row_N, place_N, length_N, level_N, p_N, output.scores)

    def compute_and_reset(self) -> HeldOutScores | None:
        """Everything that was added on all ranks, and start again; None where nothing was."""
        if not self._metric.update_count:
            return None
        found = {name: value.cpu() for name, value in self._metric.compute().items()}
        self._metric.reset()
        found = {name: value.reshape(-1) for name, value in found.items() if name != "scores"} | {
            "scores": found["scores"].reshape(found["row"].numel(), -1)  # torchmetrics squeezes what has one element
        }
        order = torch.argsort(found["row"] * (int(found["place"].max()) + 1) + found["place"])
        return HeldOutScores(**{name: value[order] for name, value in found.items()}, comparisons=self._comparisons)


class _Columns(Metric):
    """Columns of rows, concatenated over micro-batches and ranks."""

    full_state_update: bool | None = False

    def __init__(self) -> None:
        super().__init__()
        for name in COLUMNS:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, row: Tensor, place: Tensor, length: Tensor, level: Tensor, p_chosen: Tensor | None, scores: Tensor
    ) -> None:
        p = torch.full_like(row, float("nan"), dtype=torch.float64) if p_chosen is None else p_chosen.double()
        for name, value in zip(COLUMNS, (row, place, length, level, p, scores.detach().double()), strict=True):
            getattr(self, name).append(value)

    def compute(self) -> dict[str, Any]:
        return {name: dim_zero_cat(getattr(self, name)) for name in COLUMNS}


def ordered_pairs(held: HeldOutScores) -> OrderedPairs:
    """All ordered pairs of each list; a pair is a list of two, and two answers of the same rank are none."""
    _, size_L = torch.unique_consecutive(held.row, return_counts=True)
    first_L = size_L.cumsum(0) - size_L
    better_parts, worse_parts = [], []
    for size in sorted(set(size_L.tolist())):
        i, j = torch.triu_indices(size, size, 1)
        start = first_L[size_L == size].unsqueeze(-1)
        better_parts.append((start + i).flatten())
        worse_parts.append((start + j).flatten())
    better_P, worse_P = torch.cat(better_parts), torch.cat(worse_parts)
    if held.level is not None:
        strict_P = held.level[better_P] < held.level[worse_P]
        better_P, worse_P = better_P[strict_P], worse_P[strict_P]
    _, list_P, count_L = torch.unique(held.row[better_P], return_inverse=True, return_counts=True)
    p_P = held.p_chosen[better_P].nan_to_num(1.0)
    other_P = p_P < 0.5
    better_P, worse_P = torch.where(other_P, worse_P, better_P), torch.where(other_P, better_P, worse_P)
    return OrderedPairs(
        row=held.row[better_P],
        gap=held.scores[better_P] - held.scores[worse_P],
        length=held.length[better_P] - held.length[worse_P],
        weight=1.0 / count_L[list_P].double(),
        p=torch.where(other_P, 1.0 - p_P, p_P),
    )
