"""What the passes over tiles of logits share: sizes, dtypes, and how a product becomes logits.

Legend: M = tokens, V = vocabulary, K = hidden size, with the ranks of the head's adapters; m, v = sizes of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

Kept = dict[int, Tensor]  # first column -> products of that vocabulary tile (M, v), in the compute dtype


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
        kept_tiles: Vocabulary tiles whose products are kept from forward to backward.
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

    def logits(self, product: Tensor, bias_v: Tensor | None, out: Tensor) -> Tensor:
        """Logits (m, v) in the wide dtype, written into `out`; the product itself where they are the same."""
        if self.compute == self.wide and bias_v is None and self.scale == 1.0 and self.softcap is None:
            return product
        out.copy_(product)  # rounded to the compute dtype, as the model's own logits are
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

    def narrow(self, tile: Tensor, out: Tensor) -> Tensor:
        """A tile in the compute dtype: written into `out`, or itself where it is already."""
        return tile if self.compute == self.wide else out.copy_(tile)

    def accumulate(self, total: Tensor, a: Tensor, b: Tensor, *, first: bool = False) -> None:
        """Adds a @ b to `total` (overwrites it at first): product in the compute dtype, sum in the dtype of `total`."""
        if self.compute != total.dtype:
            product = torch.mm(a, b)
            total.copy_(product) if first else total.add_(product)
        elif first:
            torch.mm(a, b, out=total)
        else:
            total.addmm_(a, b)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """An LM head as the passes read it.

    Args:
        weight: (V, H).
        up: Beside it, the adapters' factors of the vocabulary (V, R); None without adapters.
        bias: (V,).
    """

    weight: Tensor
    up: Tensor | None
    bias: Tensor | None

    def rows_of(self, at: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Some rows of `[weight, up]` (v, K), in one dtype."""
        weight = self.weight[at].to(dtype)
        return weight if self.up is None else torch.cat([weight, self.up[at].to(dtype)], 1)

    def bias_of(self, columns: slice, dtype: torch.dtype) -> Tensor | None:
        """The bias of some columns of the logits (v,)."""
        return None if self.bias is None else self.bias[columns].to(dtype)


@dataclass(kw_only=True)
class Measured:
    """What a forward pass found.

    Args:
        logp: Log-prob of each target (M,).
        lse: Logsumexp of each token's logits (M,).
        kept: Products for backward.
        direction: Where the plan wants it, d logp / d hidden of each token (M, K).
    """

    logp: Tensor
    lse: Tensor
    kept: Kept = field(default_factory=dict)
    direction: Tensor | None = None


def spans(num: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`; one empty slice of nothing."""
    return (slice(start, min(start + size, num)) for start in range(0, max(num, 1), size))


def locate(target_m: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Whether each target lies in the tile (m,), and its column there, clamped (m, 1)."""
    column, width = target_m - columns.start, columns.stop - columns.start
    return (column >= 0) & (column < width), column.clamp(0, width - 1)[:, None]


def softmax_lse(logits_mv: Tensor, out: Tensor, *, hidden: bool = False) -> tuple[Tensor, Tensor]:
    """Softmax of each row (m, v), written into `out`, and its logsumexp (m,).

    The largest probability is 1 / sum exp(z - max z), so the fused softmax gives the logsumexp too: on a CPU in half
    the time of an exponential and a sum.

    Args:
        logits_mv: Logits.
        out: Memory for the softmax.
        hidden: Whether a row may be -inf throughout, as by a bias that hides part of the vocabulary: probabilities 0.
    """
    share, top = torch.softmax(logits_mv, -1, out=out), logits_mv.amax(1)
    lse = top - share.amax(1).log_()
    if hidden:
        nothing = top == -torch.inf
        share.masked_fill_(nothing[:, None], 0.0)
        lse.masked_fill_(nothing, -torch.inf)
    return share, lse


def onto_hidden(others: Tensor, logp: Tensor, chosen: Tensor, matrix: Matrix, target: Tensor, plan: Plan) -> Tensor:
    """Of d logp / d hidden (M, K): what the other tokens of the vocabulary push, and the target's own pull.

    The pull is 1 - p from the log-prob, exact also where p is close to 1 and the products are in bfloat16.

    Args:
        others: sum over v != target of p_v slope_v row_v (M, K), in the wide dtype; overwritten.
        logp: Log-prob of each target (M,).
        chosen: Its logit (M,).
        matrix: The head.
        target: (M,).
        plan: Of the pass.
    """
    own = -torch.expm1(logp)
    if plan.softcap is not None:
        own = own * (1.0 - (chosen / plan.softcap).square())
    direction = others.neg_().add_(matrix.rows_of(target, plan.wide).mul_(own[:, None]))
    return direction.mul_(plan.scale) if plan.scale != 1.0 else direction
