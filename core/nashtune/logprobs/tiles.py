"""Log-probs of given tokens from hidden states and an LM head, over tiles of (tokens x vocabulary).

The (M, V) logits never exist. Forward takes a logsumexp of each vocabulary tile. Backward depends on the head:
- trained: products are computed again, but for a few that a byte budget kept, and each tile of probabilities gives its
  part of the gradients of hidden states, weight, adapters and bias;
- frozen (LoRA elsewhere): the forward already accumulates the gradient of each log-prob with respect to its hidden
  state, as attention accumulates values, and nothing is computed twice.

Products run in the head's compute dtype, everything else in float32 (float64 for float64).

Legend: M = tokens, V = vocabulary, H = hidden size, K = hidden size and the ranks of the head's adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nashtune.interfaces.policy import TokenStatistics
from nashtune.logprobs.compared import Side, compare
from nashtune.logprobs.head import Head, accumulation_dtype
from nashtune.logprobs.passes import backward, forward
from nashtune.logprobs.plan import Matrix, Measured, Plan
from nashtune.logprobs.tiling import Tiling


def tiled_logprobs(hidden_MH: Tensor, head: Head, target_M: Tensor, tiling: Tiling) -> Tensor:
    """Log-prob of each target under softmax(head(hidden)) (M,), differentiable once in hidden states and head."""
    side = _side(hidden_MH, head, tiling)
    with torch.no_grad(), torch.autocast(hidden_MH.device.type, enabled=False):
        measured = forward(side.hidden, side.matrix, target_M, side.plan)
    return _attached(side, target_M, measured)


def tiled_comparison(
    policy: tuple[Tensor, Head], ref: tuple[Tensor, Head] | None, target_M: Tensor, fn: TokenStatistics, tiling: Tiling
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Log-probs of the targets under a policy, as `tiled_logprobs`; under a reference; and values of `fn` (M,) each.

    Args:
        policy: Hidden states (M, H) and head.
        ref: The same of the reference; None: the policy itself.
        target_M: The targets.
        fn: Statistics of a few tokens' logits over the whole vocabulary.
        tiling: Sizes.
    """
    own = _side(*policy, tiling)
    vocabulary = policy[1].weight.shape[0]
    with torch.no_grad(), torch.autocast(target_M.device.type, enabled=False):
        measured, frozen_M, values = compare(
            own,
            None if ref is None else _side(*ref, tiling),
            target_M,
            fn,
            block=tiling.block(len(target_M), vocabulary, own.plan.compute),
            rows=tiling.whole_rows(vocabulary),
        )
    return _attached(own, target_M, measured), frozen_M, values


def _side(hidden_MH: Tensor, head: Head, tiling: Tiling) -> Side:
    """Hidden states with the adapters' factors beside them, the head, and what a pass over it does."""
    hidden_MK = head.inputs(hidden_MH)
    matrix = Matrix(weight=head.weight, up=head.up(), bias=head.full_bias())
    grad = torch.is_grad_enabled()
    parts = (matrix.weight, matrix.up, matrix.bias)
    head_grad = grad and any(part is not None and part.requires_grad for part in parts)
    size = (hidden_MH.shape[0], head.weight.shape[0])
    plan = Plan(
        scale=head.scale,
        softcap=head.softcap,
        compute=head.compute_dtype,
        wide=accumulation_dtype(head.compute_dtype),
        rows=tiling.rows(size[0]),
        columns=tiling.columns(*size),
        kept_tiles=tiling.kept_tiles(*size, head.compute_dtype) if head_grad else 0,
        head_grad=head_grad,
        direction=grad and not head_grad and hidden_MK.requires_grad,
    )
    return Side(hidden=hidden_MK, matrix=matrix, plan=plan)


def _attached(side: Side, target_M: Tensor, measured: Measured) -> Tensor:
    """The log-probs with their place in autograd's graph."""
    if not (side.plan.head_grad or side.plan.direction):
        return measured.logp
    apply: Callable[..., Tensor] = _TiledLogProb.apply
    return apply(side.hidden, side.matrix.weight, side.matrix.up, side.matrix.bias, target_M, side.plan, measured)


class _TiledLogProb(torch.autograd.Function):
    """Hidden (M, K), weight (V, H), up (V, R) and bias (V,) or None, target (M,), plan, what forward measured."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        up: Tensor | None,
        bias: Tensor | None,
        target: Tensor,
        plan: Plan,
        measured: Measured,
    ) -> Tensor:
        ctx.plan = plan
        if plan.direction:
            ctx.hidden_dtype = hidden.dtype
            ctx.save_for_backward(measured.direction)
        else:
            # the log-probs are the output: a context that holds them is a cycle, and frees its memory late
            ctx.measured = replace(measured, logp=measured.lse)
            ctx.save_for_backward(hidden, weight, up, bias, target)
        return measured.logp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logp: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        with torch.autocast(grad_logp.device.type, enabled=False):
            if plan.direction:
                (direction,) = ctx.saved_tensors
                return (direction * grad_logp[:, None]).to(ctx.hidden_dtype), *[None] * 6
            # a second backward finds no kept products and computes them again
            grads = backward(ctx.saved_tensors, ctx.needs_input_grad[:4], plan, ctx.measured, grad_logp)
            return *grads, None, None, None
