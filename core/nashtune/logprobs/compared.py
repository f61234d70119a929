"""Log-probs under two heads and statistics of both vocabularies, in one pass.

Statistics need whole rows of logits, products need many rows: blocks of products in the compute dtype, and within each
a few rows at a time in float32, which then stay in a CPU's cache while they are worked on.

Legend: M = tokens, V = vocabulary, K = hidden size, with the ranks of the head's adapters; m = tokens of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nashtune.interfaces.policy import TokenStatistics
from nashtune.logprobs.plan import Kept, Matrix, Measured, Plan, onto_hidden, softmax_lse, spans


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two distributions.

    Args:
        hidden: (M, K).
        matrix: Its head.
        plan: Sizes and dtypes.
    """

    hidden: Tensor
    matrix: Matrix
    plan: Plan

    def tiles(self) -> Iterator[tuple[slice, Tensor]]:
        """Vocabulary tiles of the head, in the compute dtype: cast for each block, so that no cast of all exists."""
        for columns in spans(self.matrix.weight.shape[0], self.plan.columns):
            yield columns, self.matrix.rows_of(columns, self.plan.compute)

    def memory(self, tokens: int) -> Tensor:
        """Memory for the products of that many tokens (m, V), to be used again: fresh pages cost a CPU much time."""
        size = (min(tokens, self.hidden.shape[0]), self.matrix.weight.shape[0])
        return self.hidden.new_empty(size, dtype=self.plan.compute)

    def products(self, block: slice, memory: Tensor) -> Tensor:
        """Some tokens' hidden @ [weight, up].T (m, V), written into `memory`."""
        hidden = self.hidden[block].to(self.plan.compute)
        out = memory[: hidden.shape[0]]
        for columns, weight in self.tiles():
            torch.mm(hidden, weight.t(), out=out[:, columns])
        return out


def compare(
    policy: Side, ref: Side | None, target: Tensor, fn: TokenStatistics, *, block: int, rows: int
) -> tuple[Measured, Tensor, dict[str, Tensor]]:
    """What is measured under the policy, log-probs under the reference (M,), and what `fn` returns for each token (M,).

    Args:
        policy: The trained distribution.
        ref: The frozen one; None: the policy itself.
        target: (M,).
        fn: Statistics of a few tokens.
        block: Tokens of a block.
        rows: Tokens that `fn` sees at once.
    """
    total, plan = target.shape[0], policy.plan
    chosen = policy.hidden.new_empty(total, dtype=plan.wide)
    lse, frozen = torch.empty_like(chosen), torch.empty_like(chosen)
    others = policy.hidden.new_zeros(policy.hidden.shape, dtype=plan.wide) if plan.direction else None
    found = Measured(logp=chosen, lse=lse, kept=_kept(policy))
    values: dict[str, list[Tensor]] = {}
    own_memory, other_memory = policy.memory(block), None if ref is None else ref.memory(block)
    own_rows, other_rows = _Rows(policy, rows), None if ref is None else _Rows(ref, rows)
    for tokens in spans(total, block):
        own = policy.products(tokens, own_memory)
        other = None if ref is None or other_memory is None else ref.products(tokens, other_memory)
        for start, keep in found.kept.items():
            keep[tokens] = own[:, start : start + keep.shape[1]]
        for few in spans(own.shape[0], rows):
            at = slice(tokens.start + few.start, tokens.start + few.stop)
            wanted = target[at]
            logits, share, lse[at], chosen[at] = own_rows(own[few], wanted)
            # read before `fn`: the reference may be the policy itself
            against, frozen[at] = logits, chosen[at] - lse[at]
            if other is not None and other_rows is not None:
                against, _, ref_lse, ref_chosen = other_rows(other[few], wanted)
                frozen[at] = ref_chosen - ref_lse
            for name, value in fn(logits, against, wanted).items():
                values.setdefault(name, []).append(value)
            if others is not None:
                if (slope := plan.slope(logits)) is not None:
                    share.mul_(slope)
                own[few] = share.scatter_(1, wanted[:, None], 0.0)  # the products are no longer needed
        if others is not None:
            for columns, weight in policy.tiles():
                plan.accumulate(others[tokens], own[:, columns], weight)
    found.logp = chosen - lse
    if others is not None:
        found.direction = onto_hidden(others, found.logp, chosen, policy.matrix, target, plan)
    return found, frozen, {name: torch.cat(parts) for name, parts in values.items()}


class _Rows:
    """Whole rows of logits from products, a few at a time."""

    def __init__(self, side: Side, rows: int) -> None:
        vocabulary = side.matrix.weight.shape[0]
        self._plan, self._bias = side.plan, side.matrix.bias_of(slice(0, vocabulary), side.plan.wide)
        self._logits, self._share = (side.hidden.new_empty((rows, vocabulary), dtype=side.plan.wide) for _ in range(2))

    def __call__(self, product: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits and probabilities (m, V), valid until the next call; logsumexp and the targets' logits (m,)."""
        size = product.shape[0]
        logits = self._plan.logits(product, self._bias, self._logits[:size])
        share, lse = softmax_lse(logits, self._share[:size])
        return logits, share, lse, logits.gather(1, target[:, None])[:, 0]


def _kept(policy: Side) -> Kept:
    """Memory for the products that backward will want."""
    plan, sizes = policy.plan, (policy.hidden.shape[0], policy.matrix.weight.shape[0])
    columns = list(spans(sizes[1], plan.columns))[: plan.kept_tiles]
    return {
        part.start: policy.hidden.new_empty((sizes[0], part.stop - part.start), dtype=plan.compute) for part in columns
    }
