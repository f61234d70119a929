"""The two passes over tiles behind `tiled_logprobs`.

Legend: M = tokens, V = vocabulary, H = hidden size; m, v = sizes of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Kept = dict[int, tuple[Tensor, Tensor]]  # first column -> exp(logits - top) (M, v), top (M,)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a pass needs besides tensors.

    Args:
        scale: Factor on the logits.
        softcap: Bound on the logits.
        compute: Dtype of the products.
        wide: Dtype of everything else.
        rows: Tokens in a tile.
        columns: Vocabulary in a tile.
        kept_tiles: Vocabulary tiles kept from forward to backward.
        head_grad: The head is trained.
        direction: The head is frozen and the hidden states are not.
    """

    scale: float
    softcap: float | None
    compute: torch.dtype
    wide: torch.dtype
    rows: int
    columns: int
    kept_tiles: int
    head_grad: bool
    direction: bool

    def logits(self, hidden_mH: Tensor, weight_vH: Tensor, bias_v: Tensor | None, out: Tensor) -> Tensor:
        """A tile of logits (m, v) in the wide dtype, written into `out`."""
        if self.compute == self.wide:
            torch.mm(hidden_mH, weight_vH.t(), out=out)
        else:  # rounded to the compute dtype, as the model's own logits are
            out.copy_(torch.mm(hidden_mH, weight_vH.t()))
        if bias_v is not None:
            out.add_(bias_v)
        if self.scale != 1.0:
            out.mul_(self.scale)
        if self.softcap is not None:
            out.div_(self.softcap).tanh_().mul_(self.softcap)
        return out

    def slope(self, logits: Tensor) -> Tensor | None:
        """Derivative of the soft cap, from the capped logits; None where there is no cap."""
        return None if self.softcap is None else 1.0 - (logits / self.softcap).square_()

    def accumulate(self, total: Tensor, a: Tensor, b: Tensor, *, first: bool = False) -> None:
        """Adds a @ b to `total` (overwrites it at first): product in the compute dtype, sum in the dtype of `total`."""
        if self.compute != total.dtype:
            product = torch.mm(a, b)
            total.copy_(product) if first else total.add_(product)
        elif first:
            torch.mm(a, b, out=total)
        else:
            total.addmm_(a, b)


def spans(num: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`."""
    return (slice(start, min(start + size, num)) for start in range(0, num, size))


def locate(target_m: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Whether each target lies in the tile (m,), and its column there, clamped (m, 1)."""
    column, width = target_m - columns.start, columns.stop - columns.start
    return (column >= 0) & (column < width), column.clamp(0, width - 1)[:, None]


class Forward:
    """Online logsumexp over vocabulary tiles; with `direction`, also d logp / d hidden of each token (M, H)."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, plan: Plan) -> None:
        self.hidden, self.weight, self.bias, self.target, self.plan = hidden, weight, bias, target, plan
        rows = hidden.shape[0]
        self.top = hidden.new_full((rows,), -torch.inf, dtype=plan.wide)  # running maximum
        self.mass = hidden.new_zeros(rows, dtype=plan.wide)  # sum of exp(logit - top)
        self.chosen = hidden.new_zeros(rows, dtype=plan.wide)  # logit of the target
        self.others = hidden.new_zeros(hidden.shape, dtype=plan.wide) if plan.direction else None
        self.kept: Kept = {}
        self.lse = self.top
        self.direction: Tensor | None = None

    def run(self) -> Tensor:
        """Log-prob of each target (M,)."""
        plan, hidden = self.plan, self.hidden.to(self.plan.compute)
        buffer = hidden.new_empty(plan.rows * plan.columns, dtype=plan.wide)
        for index, columns in enumerate(spans(self.weight.shape[0], plan.columns)):
            weight = self.weight[columns].to(plan.compute)
            bias = None if self.bias is None else self.bias[columns].to(plan.wide)
            width = weight.shape[0]
            keep = hidden.new_empty((len(hidden), width), dtype=plan.wide) if index < plan.kept_tiles else None
            for rows in spans(hidden.shape[0], plan.rows):
                size = rows.stop - rows.start
                out = buffer[: size * width].view(size, width) if keep is None else keep[rows]
                self._absorb(rows, columns, plan.logits(hidden[rows], weight, bias, out), weight)
            if keep is not None:
                self.kept[columns.start] = keep, self.top.clone()
        self.lse = self.top + self.mass.log()
        logp = self.chosen - self.lse
        if self.others is not None:
            self.direction = self._finish(self.others, logp)
        return logp

    def _absorb(self, rows: slice, columns: slice, tile: Tensor, weight: Tensor) -> None:
        inside, column = locate(self.target[rows], columns)
        self.chosen[rows] += torch.where(inside, tile.gather(1, column)[:, 0], 0.0)
        top = torch.maximum(self.top[rows], tile.amax(1))
        shrink = (self.top[rows] - top).exp_()
        slope = self.plan.slope(tile) if self.others is not None else None
        tile.sub_(top[:, None]).exp_()
        self.mass[rows] = self.mass[rows] * shrink + tile.sum(1)
        self.top[rows] = top
        if self.others is None:
            return
        if slope is not None:
            tile.mul_(slope)
        # the target is added at the end as 1 - p, exact also where p is close to 1 and the products are in bfloat16
        tile.scatter_(1, column, torch.where(inside, 0.0, tile.gather(1, column)[:, 0])[:, None])
        others = self.others[rows].mul_(shrink[:, None])
        self.plan.accumulate(others, tile.to(self.plan.compute), weight)

    def _finish(self, others: Tensor, logp: Tensor) -> Tensor:
        own = -torch.expm1(logp)
        if self.plan.softcap is not None:
            own = own * (1.0 - (self.chosen / self.plan.softcap).square())
        direction = others.mul_(-(self.top - self.lse).exp()[:, None])
        direction.add_(self.weight[self.target].to(self.plan.wide).mul_(own[:, None]))
        return direction.mul_(self.plan.scale) if self.plan.scale != 1.0 else direction


def backward(
    saved: Sequence[Tensor], wants: Sequence[bool], plan: Plan, kept: Kept, grad_logp: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias, where wanted. Overwrites the kept tiles.

    Args:
        saved: Hidden (M, H), weight (V, H), bias (V,) or None, target (M,), logsumexp (M,).
        wants: Which of hidden, weight and bias get a gradient.
        plan: As in forward.
        kept: As forward left them.
        grad_logp: Gradient of each log-prob (M,).
    """
    hidden, weight, bias, target, lse = saved
    narrow = hidden.to(plan.compute)
    # minus: tiles hold p - onehot. The factor of each token goes to the thin (M, H) side of the products
    factor = grad_logp.to(plan.wide) * -plan.scale
    scaled = (hidden.to(plan.wide) * factor[:, None]).to(plan.compute)
    grad_hidden = hidden.new_zeros(hidden.shape, dtype=plan.wide) if wants[0] else None
    make = torch.empty_like if len(hidden) else torch.zeros_like  # every tile is overwritten by its first rows
    grad_weight = make(weight) if wants[1] else None
    grad_bias = torch.zeros_like(bias) if wants[2] else None
    buffer = hidden.new_empty(plan.rows * plan.columns, dtype=plan.wide)
    for columns in spans(weight.shape[0], plan.columns):
        weight_tile = weight[columns].to(plan.compute)
        bias_tile = None if bias is None else bias[columns].to(plan.wide)
        width = weight_tile.shape[0]
        exact = weight.dtype == plan.wide
        part = None if grad_weight is None else grad_weight[columns] if exact else make(weight_tile, dtype=plan.wide)
        keep = kept.pop(columns.start, None)
        for rows in spans(hidden.shape[0], plan.rows):
            size = rows.stop - rows.start
            if keep is not None:
                tile, slope = keep[0][rows], None
                tile.mul_((keep[1][rows] - lse[rows]).exp_()[:, None])
            else:
                out = buffer[: size * width].view(size, width)
                tile = plan.logits(narrow[rows], weight_tile, bias_tile, out)
                slope = plan.slope(tile)
                tile.sub_(lse[rows, None]).exp_()
            inside, column = locate(target[rows], columns)
            tile.scatter_add_(1, column, -inside.to(plan.wide)[:, None])
            if slope is not None:
                tile.mul_(slope)
            if grad_bias is not None:
                grad_bias[columns] += torch.mv(tile.t(), factor[rows]).to(grad_bias.dtype)
            low = tile.to(plan.compute)
            if grad_hidden is not None:
                plan.accumulate(grad_hidden[rows], low, weight_tile)
            if part is not None:
                plan.accumulate(part, low.t(), scaled[rows], first=rows.start == 0)
        if grad_weight is not None and part is not None and not exact:
            grad_weight[columns] = part
    if grad_hidden is not None:
        grad_hidden = grad_hidden.mul_(factor[:, None]).to(hidden.dtype)
    return grad_hidden, grad_weight, grad_bias
