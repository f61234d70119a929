"""Log-probs of given tokens from hidden states and an LM head, over tiles of (tokens x vocabulary).

The (M, V) logits never exist. Forward keeps an online logsumexp over vocabulary tiles. Backward depends on the head:
trained, each tile of logits is computed again and gives its part of both gradients; frozen (LoRA), the forward already
accumulates the gradient of each log-prob with respect to its hidden state, as attention accumulates values, and nothing
is computed twice.

Products run in the head's compute dtype, everything else in float32 (float64 for float64).

Legend: M = tokens, V = vocabulary, H = hidden size; m, v = sizes of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from nashtune.logprobs.head import Head, accumulation_dtype

TILE_BYTES = {"cpu": 16 * 2**20}  # stays near the caches: measured 0.7 of the time of a full-vocabulary pass
TILE_BYTES_ACCELERATOR = 128 * 2**20  # few, large products
MAX_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Size of a tile of logits.

    Args:
        tokens: Rows.
        vocabulary: Columns.
    """

    tokens: int
    vocabulary: int

    @staticmethod
    def fit(num_tokens: int, num_vocabulary: int, num_bytes: int, tokens: int | None = None) -> Tile:
        """The tile that fills a byte budget in float32: every token up to a limit, then as much vocabulary as fits."""
        rows = max(1, min(num_tokens, tokens or MAX_TOKENS))
        columns = max(64, num_bytes // (4 * rows) // 64 * 64)
        return Tile(tokens=rows, vocabulary=min(num_vocabulary, columns))


def tile_bytes(device: torch.device) -> int:
    """Default byte budget of one tile on this kind of device."""
    return TILE_BYTES.get(device.type, TILE_BYTES_ACCELERATOR)


def tiled_logprobs(hidden_MH: Tensor, head: Head, target_M: Tensor, tile: Tile) -> Tensor:
    """Log-prob of each target under softmax(head(hidden)) (M,), differentiable once in hidden, weight and bias."""
    grad = torch.is_grad_enabled()
    head_grad = grad and (head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad))
    plan = _Plan(
        scale=head.scale,
        softcap=head.softcap,
        compute=head.compute_dtype,
        wide=accumulation_dtype(head.compute_dtype),
        tile=tile,
        recompute=head_grad,
        direction=grad and not head_grad and hidden_MH.requires_grad,
    )
    apply: Callable[..., Tensor] = _TiledLogProb.apply
    return apply(hidden_MH, head.weight, head.bias, target_M, plan)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a pass needs besides tensors; `recompute` for a trained head, `direction` for a frozen one."""

    scale: float
    softcap: float | None
    compute: torch.dtype
    wide: torch.dtype
    tile: Tile
    recompute: bool
    direction: bool

    def spans(self, num: int, size: int) -> Iterator[slice]:
        return (slice(start, min(start + size, num)) for start in range(0, num, size))

    def logits(self, hidden_mH: Tensor, weight_vH: Tensor, bias_v: Tensor | None, out: Tensor) -> Tensor:
        """A tile of logits (m, v) in the wide dtype, written into `out`."""
        tile = out[: hidden_mH.shape[0] * weight_vH.shape[0]].view(hidden_mH.shape[0], weight_vH.shape[0])
        if self.compute == self.wide:
            torch.mm(hidden_mH, weight_vH.t(), out=tile)
        else:  # rounded to the compute dtype, as the model's own logits are
            tile.copy_(torch.mm(hidden_mH, weight_vH.t()))
        if bias_v is not None:
            tile.add_(bias_v)
        if self.scale != 1.0:
            tile.mul_(self.scale)
        if self.softcap is not None:
            tile.div_(self.softcap).tanh_().mul_(self.softcap)
        return tile

    def slope(self, logits: Tensor) -> Tensor | None:
        """Derivative of the soft cap, from the capped logits; None where there is no cap."""
        return None if self.softcap is None else 1.0 - (logits / self.softcap).square_()


class _TiledLogProb(torch.autograd.Function):
    """Arguments: hidden (M, H), weight (V, H), bias (V,) or None, target (M,), plan."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, plan: _Plan) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            state = _Forward(hidden, weight, bias, target, plan)
            logp = state.run()
        ctx.plan = plan
        if plan.recompute:
            ctx.save_for_backward(hidden, weight, bias, target, state.lse)
        elif plan.direction:
            ctx.hidden_dtype = hidden.dtype
            ctx.save_for_backward(state.direction)
        return logp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logp: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        with torch.autocast(grad_logp.device.type, enabled=False):
            if plan.direction:
                (direction,) = ctx.saved_tensors
                return (direction * grad_logp[:, None]).to(ctx.hidden_dtype), None, None, None, None
            return (*_backward(ctx, plan, grad_logp), None, None)


class _Forward:
    """Online logsumexp over vocabulary tiles; with `direction`, also d logp / d hidden of each token (M, H)."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, plan: _Plan) -> None:
        self.hidden, self.weight, self.bias, self.target, self.plan = hidden, weight, bias, target, plan
        rows = hidden.shape[0]
        self.top = hidden.new_full((rows,), -torch.inf, dtype=plan.wide)  # running maximum
        self.mass = hidden.new_zeros(rows, dtype=plan.wide)  # sum of exp(logit - top)
        self.chosen = hidden.new_zeros(rows, dtype=plan.wide)  # logit of the target
        self.others = hidden.new_zeros(hidden.shape, dtype=plan.wide) if plan.direction else None
        self.lse = self.top
        self.direction: Tensor | None = None

    def run(self) -> Tensor:
        """Log-prob of each target (M,)."""
        plan, hidden = self.plan, self.hidden.to(self.plan.compute)
        buffer = hidden.new_empty(plan.tile.tokens * plan.tile.vocabulary, dtype=plan.wide)
        for columns in plan.spans(self.weight.shape[0], plan.tile.vocabulary):
            weight = self.weight[columns].to(plan.compute)
            bias = None if self.bias is None else self.bias[columns].to(plan.wide)
            for rows in plan.spans(hidden.shape[0], plan.tile.tokens):
                self._absorb(rows, plan.logits(hidden[rows], weight, bias, buffer), columns.start, weight)
        self.lse = self.top + self.mass.log()
        logp = self.chosen - self.lse
        if self.others is not None:
            self.direction = self._finish(logp)
        return logp

    def _absorb(self, rows: slice, tile: Tensor, start: int, weight: Tensor) -> None:
        inside, column = _locate(self.target[rows], start, tile.shape[1])
        chosen = tile.gather(1, column)[:, 0]
        self.chosen[rows] += torch.where(inside, chosen, 0.0)
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
        mixed = torch.mm(tile.to(self.plan.compute), weight)
        self.others[rows] = self.others[rows].mul_(shrink[:, None]).add_(mixed)

    def _finish(self, logp: Tensor) -> Tensor:
        assert self.others is not None
        own = -torch.expm1(logp)
        if self.plan.softcap is not None:
            own = own * (1.0 - (self.chosen / self.plan.softcap).square())
        direction = self.others.mul_(-(self.top - self.lse).exp()[:, None])
        direction.add_(self.weight[self.target].to(self.plan.wide).mul_(own[:, None]))
        return direction.mul_(self.plan.scale) if self.plan.scale != 1.0 else direction


def _locate(target_m: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Whether each target lies in the tile (m,), and its column there, clamped (m, 1)."""
    column = target_m - start
    return (column >= 0) & (column < width), column.clamp(0, width - 1)[:, None]


def _backward(ctx: FunctionCtx, plan: _Plan, grad_logp: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias, each tile of logits computed again."""
    hidden, weight, bias, target, lse = ctx.saved_tensors  # type: ignore[attr-defined]
    wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]  # type: ignore[attr-defined]
    narrow = hidden.to(plan.compute)
    factor = grad_logp.to(plan.wide) * plan.scale
    # the factor of each token goes to the thin (M, H) side of the products, not to the tiles
    scaled = (hidden.to(plan.wide) * factor[:, None]).to(plan.compute) if wants_weight else None
    grad_hidden = hidden.new_zeros(hidden.shape, dtype=plan.wide) if wants_hidden else None
    grad_weight = torch.empty_like(weight) if wants_weight else None
    grad_bias = torch.empty_like(bias) if wants_bias else None
    buffer = hidden.new_empty(plan.tile.tokens * plan.tile.vocabulary, dtype=plan.wide)
    for columns in plan.spans(weight.shape[0], plan.tile.vocabulary):
        weight_tile = weight[columns].to(plan.compute)
        bias_tile = None if bias is None else bias[columns].to(plan.wide)
        part_weight = hidden.new_zeros(weight_tile.shape, dtype=plan.wide) if wants_weight else None
        part_bias = hidden.new_zeros(weight_tile.shape[0], dtype=plan.wide) if wants_bias else None
        for rows in plan.spans(hidden.shape[0], plan.tile.tokens):
            tile = plan.logits(narrow[rows], weight_tile, bias_tile, buffer)
            slope = plan.slope(tile)
            tile.sub_(lse[rows, None]).exp_()
            inside, column = _locate(target[rows], columns.start, tile.shape[1])
            tile.scatter_add_(1, column, -inside.to(plan.wide)[:, None])  # p - onehot
            if slope is not None:
                tile.mul_(slope)
            if part_bias is not None:
                part_bias.addmv_(tile.t(), factor[rows])
            low = tile.to(plan.compute)
            if grad_hidden is not None:
                grad_hidden[rows] += torch.mm(low, weight_tile)
            if part_weight is not None and scaled is not None:
                part_weight += torch.mm(low.t(), scaled[rows])
        if grad_weight is not None and part_weight is not None:
            grad_weight[columns] = part_weight.neg_()
        if grad_bias is not None and part_bias is not None:
            grad_bias[columns] = part_bias.neg_()
    if grad_hidden is not None:
        grad_hidden = grad_hidden.mul_(-factor[:, None]).to(hidden.dtype)
    return grad_hidden, grad_weight, grad_bias
