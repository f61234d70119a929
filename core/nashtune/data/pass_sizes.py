"""Which rows of a batch are computed together, from their lengths alone; without torch.

A batch is the rows of a micro-batch; a pass is what one forward and backward computation takes of them.
"""

from __future__ import annotations

from collections.abc import Sequence

CPU_TOKENS, MOST_CPU_TOKENS = 512, 2048
"""Least and greatest size of a pass on a CPU where a run says nothing, in positions. Each pass adds a gradient of
every weight to the others, so larger ones are faster: a step of a Llama of 30M parameters takes in one pass of 1,750
positions 0.8 of the time of four passes. What they keep in memory is what limits them."""
CPU_BYTES = 512 * 2**20
"""Of what is kept of a pass from forward to backward on a CPU, about; a large model has at least `CPU_TOKENS` all the
same."""
ACCELERATOR_TOKENS = 16384
LEAST_OF_LONGEST = 0.8
"""Where an engine pads: least length of a row, as a share of the longest in its pass. A pass costs little, padding
much."""


def cpu_tokens(*, layers: int, hidden: int, intermediate: int) -> int:
    """Positions of a pass on a CPU, from a decoder's sizes.

    A layer keeps some 8 numbers of the residual stream's width and 4 of the MLP's for each position, taken for float32:
    the precision of a run does not change its passes.

    Args:
        layers: Of the decoder.
        hidden: Width of the residual stream.
        intermediate: Width of the MLP.
    """
    each = 4 * layers * (8 * hidden + 4 * intermediate)
    return min(MOST_CPU_TOKENS, max(CPU_TOKENS, CPU_BYTES // each))


def fill_passes(cost: Sequence[int], budget: int, *, pads: bool, group: Sequence[int] | None = None) -> list[list[int]]:
    """The rows of a batch in passes, longest first.

    A row that is longer than the budget is a pass of its own.

    Args:
        cost: Positions of each row by itself.
        budget: Most positions of a pass.
        pads: Whether every row of a pass costs as much as its longest.
        group: Rows of one group stay side by side; absent: each is its own.
    """
    group = range(len(cost)) if group is None else group
    largest: dict[int, int] = {}
    for one, name in zip(cost, group, strict=True):
        largest[name] = max(one, largest.get(name, 0))
    passes: list[list[int]] = []
    for row in sorted(range(len(cost)), key=lambda row: (-largest[group[row]], group[row], row)):
        now = [cost[other] for other in (*(passes[-1] if passes else ()), row)]
        alike = not pads or cost[row] >= LEAST_OF_LONGEST * max(now)
        if passes and alike and (max(now) * len(now) if pads else sum(now)) <= budget:
            passes[-1].append(row)
        else:
            passes.append([row])
    return passes
