"""The two passes over tiles behind `tiled_logprobs`.

Legend: M = tokens, V = vocabulary, K = hidden size, with the ranks of the head's adapters; m, v = sizes of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nashtune.logprobs.plan import Matrix, Measured, Plan, locate, onto_hidden, softmax_lse, spans


def forward(hidden: Tensor, matrix: Matrix, target: Tensor, plan: Plan) -> Measured:
    """Log-prob of each target from the logsumexps of vocabulary tiles.

    Args:
        hidden: (M, K).
        matrix: The head.
        target: (M,).
        plan: Sizes and dtypes.
    """
    narrow, rows_total = hidden.to(plan.compute), hidden.shape[0]
    chosen = hidden.new_zeros(rows_total, dtype=plan.wide)
    pushes = _Pushes(hidden, plan) if plan.direction else None
    found = Measured(logp=chosen, lse=chosen)
    product_of, logits_of, share_of = (_Buffer(hidden, plan, dtype) for dtype in (plan.compute, plan.wide, plan.wide))
    tiles = list(spans(matrix.weight.shape[0], plan.columns))
    parts = chosen.new_empty(len(tiles), rows_total)
    for index, columns in enumerate(tiles):
        weight, bias = matrix.rows_of(columns, plan.compute), matrix.bias_of(columns, plan.wide)
        width = weight.shape[0]
        keep = hidden.new_empty((rows_total, width), dtype=plan.compute) if index < plan.kept_tiles else None
        for rows in spans(rows_total, plan.rows):
            near = narrow[rows]
            size = (near.shape[0], width)
            product = torch.mm(near, weight.t(), out=product_of(size) if keep is None else keep[rows])
            tile = plan.logits(product, bias, logits_of(size))
            inside, column = locate(target[rows], columns)
            chosen[rows] += torch.where(inside, tile.gather(1, column)[:, 0], 0.0)
            share, local = softmax_lse(tile, share_of(size), hidden=bias is not None)
            parts[index, rows] = local
            if pushes is not None:
                if (slope := plan.slope(tile)) is not None:
                    share.mul_(slope)
                share.scatter_(1, column, torch.where(inside, 0.0, share.gather(1, column)[:, 0])[:, None])
                pushes.add(rows, share, local, weight, product)
        if keep is not None:
            found.kept[columns.start] = keep
    found.lse = parts.logsumexp(0)
    found.logp = chosen - found.lse
    if pushes is not None:
        found.direction = onto_hidden(pushes.total(found.lse), found.logp, chosen, matrix, target, plan)
    return found


class _Buffer:
    """Memory for one tile at a time."""

    def __init__(self, like: Tensor, plan: Plan, dtype: torch.dtype) -> None:
        self._flat = like.new_empty(plan.rows * plan.columns, dtype=dtype)

    def __call__(self, size: tuple[int, int]) -> Tensor:
        return self._flat[: size[0] * size[1]].view(size)


class _Pushes:
    """Running sum over v of p_v row_v (M, K), as attention accumulates values."""

    def __init__(self, hidden: Tensor, plan: Plan) -> None:
        self._plan = plan
        self._sum = hidden.new_zeros(hidden.shape, dtype=plan.wide)
        self._lse = hidden.new_full((hidden.shape[0],), -torch.inf, dtype=plan.wide)

    def add(self, rows: slice, share: Tensor, local: Tensor, weight: Tensor, memory: Tensor) -> None:
        before = self._lse[rows]
        now = torch.logaddexp(before, local)
        seen = now.clamp_min(torch.finfo(now.dtype).min)  # -inf less -inf, where a bias hides the vocabulary so far
        part = self._sum[rows].mul_((before - seen).exp_()[:, None])
        share.mul_((local - seen).exp_()[:, None])
        self._plan.accumulate(part, self._plan.narrow(share, memory), weight)
        self._lse[rows] = now

    def total(self, lse: Tensor) -> Tensor:
        return self._sum.mul_((self._lse - lse).exp_()[:, None])


def backward(
    saved: Sequence[Tensor], wants: Sequence[bool], plan: Plan, measured: Measured, grad_logp: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight, up and bias, where wanted. Uses up the kept products.

    Args:
        saved: Hidden (M, K), weight (V, H), up (V, R) or None, bias (V,) or None, target (M,).
        wants: Which of the first four get a gradient.
        plan: As in forward.
        measured: What forward found.
        grad_logp: Gradient of each log-prob (M,).
    """
    hidden, weight, up, bias, target = saved
    matrix, kept, lse = Matrix(weight=weight, up=up, bias=bias), measured.kept, measured.lse
    narrow = hidden.to(plan.compute)
    # minus: tiles hold p - onehot. The factor of each token goes to the thin (M, K) side of the products
    factor = grad_logp.to(plan.wide) * -plan.scale
    # of K, what belongs to the weight, to `up`, or to both
    first, last = (0 if wants[1] else weight.shape[1]), (hidden.shape[1] if wants[2] else weight.shape[1])
    scaled = (hidden[:, first:last].to(plan.wide) * factor[:, None]).to(plan.compute)
    grad_hidden = hidden.new_zeros(hidden.shape, dtype=plan.wide) if wants[0] else None
    grad_weight = torch.empty_like(weight) if wants[1] else None
    grad_up = torch.empty_like(up) if wants[2] else None
    grad_bias = torch.zeros_like(bias) if wants[3] else None
    in_place = grad_weight is not None and grad_up is None and weight.dtype == plan.wide
    product_of, logits_of = (_Buffer(hidden, plan, dtype) for dtype in (plan.compute, plan.wide))
    for columns in spans(weight.shape[0], plan.columns):
        weight_tile, bias_tile = matrix.rows_of(columns, plan.compute), matrix.bias_of(columns, plan.wide)
        width = weight_tile.shape[0]
        part: Tensor | None
        if grad_weight is not None and in_place:
            part = grad_weight[columns]
        else:
            part = scaled.new_empty((width, last - first), dtype=plan.wide) if last > first else None
        keep = kept.pop(columns.start, None)
        for rows in spans(hidden.shape[0], plan.rows):
            near = narrow[rows]
            size = (near.shape[0], width)
            product = keep[rows] if keep is not None else torch.mm(near, weight_tile.t(), out=product_of(size))
            tile = plan.logits(product, bias_tile, logits_of(size))
            slope = plan.slope(tile)
            tile.sub_(lse[rows, None]).exp_()
            inside, column = locate(target[rows], columns)
            tile.scatter_add_(1, column, -inside.to(plan.wide)[:, None])
            if slope is not None:
                tile.mul_(slope)
            if grad_bias is not None:
                grad_bias[columns] += torch.mv(tile.t(), factor[rows]).to(grad_bias.dtype)
            low = plan.narrow(tile, product)  # fresh memory for each tile would cost a CPU time and hold on to pages
            if grad_hidden is not None:
                plan.accumulate(grad_hidden[rows], low, weight_tile)
            if part is not None:
                plan.accumulate(part, low.t(), scaled[rows], first=rows.start == 0)
        if part is not None and not in_place:
            own = weight.shape[1] - first
            if grad_weight is not None:
                grad_weight[columns] = part[:, :own]
            if grad_up is not None:
                grad_up[columns] = part[:, own:]
    if grad_hidden is not None:
        grad_hidden = grad_hidden.mul_(factor[:, None]).to(hidden.dtype)
    return grad_hidden, grad_weight, grad_up, grad_bias
