"""Log-probs of given tokens from hidden states and an LM head, over tiles of (tokens x vocabulary).

The (M, V) logits never exist. Forward keeps an online logsumexp over vocabulary tiles. Backward depends on the head:
- trained: tiles of probabilities are computed again, but for a few that a byte budget kept (a quarter at most), and
  each gives its part of the gradients of hidden states, weight and bias;
- frozen (LoRA): the forward already accumulates the gradient of each log-prob with respect to its hidden state, as
  attention accumulates values, and nothing is computed twice.

Products run in the head's compute dtype, everything else in float32 (float64 for float64).

Legend: M = tokens, V = vocabulary, H = hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nashtune.logprobs.head import Head, accumulation_dtype
from nashtune.logprobs.passes import Forward, Kept, Plan, backward

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Sizes, in float32.

    Args:
        tokens: Rows of a tile, at most.
        tile_bytes: A tile of logits; it decides the columns.
        kept_bytes: Tiles kept from forward to backward, at most; never more than a quarter of the logits.
    """

    tokens: int = 2048
    tile_bytes: int = 32 * MIB
    kept_bytes: int = 96 * MIB

    @staticmethod
    def on(device: torch.device) -> Tiling:
        """Defaults: on a CPU small enough to matter beside a small model; on an accelerator few, large products."""
        return Tiling() if device.type == "cpu" else Tiling(tile_bytes=256 * MIB, kept_bytes=512 * MIB)

    def rows(self, num_tokens: int) -> int:
        """Tokens in a tile."""
        return max(1, min(num_tokens, self.tokens))

    def columns(self, num_tokens: int, vocabulary: int) -> int:
        """Vocabulary in a tile, a multiple of 64 where that is not all of it."""
        return min(vocabulary, max(64, self.tile_bytes // (4 * self.rows(num_tokens)) // 64 * 64))

    def kept_tiles(self, num_tokens: int, vocabulary: int) -> int:
        """Vocabulary tiles, over all tokens, that are kept."""
        columns = self.columns(num_tokens, vocabulary)
        return min(self.kept_bytes // max(1, 4 * num_tokens * columns), vocabulary // columns // 4)


def tiled_logprobs(hidden_MH: Tensor, head: Head, target_M: Tensor, tiling: Tiling) -> Tensor:
    """Log-prob of each target under softmax(head(hidden)) (M,), differentiable once in hidden, weight and bias."""
    grad = torch.is_grad_enabled()
    head_grad = grad and (head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad))
    size = (hidden_MH.shape[0], head.weight.shape[0])
    # the slope of a soft cap is read off the logits, which a kept tile no longer holds
    keeps = head_grad and head.softcap is None
    plan = Plan(
        scale=head.scale,
        softcap=head.softcap,
        compute=head.compute_dtype,
        wide=accumulation_dtype(head.compute_dtype),
        rows=tiling.rows(size[0]),
        columns=tiling.columns(*size),
        kept_tiles=tiling.kept_tiles(*size) if keeps else 0,
        head_grad=head_grad,
        direction=grad and not head_grad and hidden_MH.requires_grad,
    )
    apply: Callable[..., Tensor] = _TiledLogProb.apply
    return apply(hidden_MH, head.weight, head.bias, target_M, plan)


class _TiledLogProb(torch.autograd.Function):
    """Arguments: hidden (M, H), weight (V, H), bias (V,) or None, target (M,), plan."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, plan: Plan) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            state = Forward(hidden, weight, bias, target, plan)
            logp = state.run()
        ctx.plan = plan
        if plan.head_grad:
            ctx.kept = state.kept
            ctx.save_for_backward(hidden, weight, bias, target, state.lse)
        elif plan.direction:
            ctx.hidden_dtype = hidden.dtype
            ctx.save_for_backward(state.direction)
        return logp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logp: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        with torch.autocast(grad_logp.device.type, enabled=False):
            if plan.direction:
                (direction,) = ctx.saved_tensors
                return (direction * grad_logp[:, None]).to(ctx.hidden_dtype), None, None, None, None
            kept: Kept = ctx.kept
            ctx.kept = {}  # backward overwrites them: a second backward computes them again
            grads = backward(ctx.saved_tensors, ctx.needs_input_grad[:3], plan, kept, grad_logp)
            return (*grads, None, None)
