"""Bytes that autograd keeps from forward to backward, counted from the sizes of a Llama-like model.

The numbers are those of transformers' modules: what a norm, a linear map, a rotation, an attention and a gated MLP
save. `tests/core/memory/test_activations.py` compares them with what autograd really saves.

Legend: T = tokens of the longest sequence, r = rank of an adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

from nashtune.memory.passes import PADS, Pass
from nashtune.memory.shape import ModelShape

WIDE = 4  # float32
COPIED = 5  # inputs of linear maps that are converted one by one: queries, keys, values, gate, up
ADAPTED = 7  # linear maps of a layer


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a model is run.

    Args:
        weight: Bytes of a weight: 4 or 2.
        autocast: Whether products are in bfloat16 whatever the weights are in.
        engine: Of the run.
        attention: `policy.attention`.
        rank: Of the adapter; 0 where the model's own weights are trained.
        checkpointing: Whether layers are computed again in backward.
    """

    weight: int = WIDE
    autocast: bool = False
    engine: str = "shared"
    attention: str = "sdpa"
    rank: int = 0
    checkpointing: bool = False

    @property
    def product(self) -> int:
        """Bytes of a number that a matrix product gives."""
        return 2 if self.autocast else self.weight

    @property
    def converts(self) -> bool:
        """Whether weights are converted for every product."""
        return self.autocast and self.weight == WIDE


def kept_bytes(shape: ModelShape, compute: Compute, one: Pass) -> int:
    """All that is kept of a pass through the backbone, with the layer that checkpointing holds at a time."""
    layer = layer_bytes(shape, compute, one.width) * one.positions
    converted = 2 * shape.linear if compute.converts else 0
    ends = one.positions * (2 * shape.hidden * compute.weight + 8 * shape.queries // shape.heads)
    if not compute.checkpointing:
        return shape.layers * layer + converted + ends
    borders = shape.layers * one.positions * shape.hidden * compute.weight
    return borders + layer + converted // shape.layers + ends


def layer_bytes(shape: ModelShape, compute: Compute, width: int) -> int:
    """Kept by a layer for each position.

    Args:
        shape: Of the model.
        compute: How it is run.
        width: T.
    """
    return (
        shape.norms * shape.hidden * (WIDE + (0 if compute.rank else compute.weight))
        + shape.hidden * _inputs(compute)
        + shape.intermediate * _mlp(compute)
        + _attention(shape, compute, width)
        + ADAPTED * compute.rank * (2 if compute.autocast else WIDE)
        + WIDE * shape.norms
    )


def _inputs(compute: Compute) -> int:
    """Bytes per number of the residual stream, as what enters the linear maps."""
    if compute.autocast and (compute.weight == WIDE or compute.rank):
        return COPIED * 2
    if compute.rank and compute.weight == 2:  # an adapter is float32: each converts its input
        return COPIED * WIDE
    return 2 * compute.weight  # one behind each norm


def _mlp(compute: Compute) -> int:
    """Gate, its activation, up, and what enters the last map, which an adapter on bf16 weights converts."""
    return 3 * compute.product + (WIDE if compute.rank and not compute.autocast else compute.product)


def _attention(shape: ModelShape, compute: Compute, width: int) -> int:
    pads = compute.engine in PADS
    keys = shape.queries if pads else shape.keys  # padded, transformers repeats the keys for each query head
    kept = compute.product * (2 * shape.queries + 2 * keys) + WIDE * shape.heads
    if compute.attention == "eager":
        kept += shape.heads * width * (WIDE + compute.product)
    elif pads:
        kept += width * compute.product  # the mask, for every layer anew
    if compute.rank and compute.product == 2:  # what the adapter of the last map reads
        kept += shape.queries * (2 if compute.autocast else WIDE)
    if shape.head_norms:
        kept += (shape.queries + shape.keys) * (WIDE + (0 if compute.rank else compute.product))
    return kept


def flops(shape: ModelShape, compute: Compute, one: Pass) -> int:
    """Of forward and backward of a pass: two for each weight and position forward, four backward.

    With an adapter no gradient of the frozen weights is computed; with checkpointing layers run forward twice.
    """
    layers = 2 * shape.linear * one.positions + 4 * shape.layers * shape.queries * one.positions * one.width // 2
    head = 2 * shape.embedding * one.targets
    backward = 1 if compute.rank else 2
    return layers * (1 + backward + compute.checkpointing) + head * (2 + backward)
