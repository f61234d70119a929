"""Peak memory of a run: what stays, what a pass adds, and at which moment most of it is there.

On a CPU that is resident memory of the process, with python and its libraries; on an accelerator it is what torch has
allocated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nashtune.cpu import slow_in_float32
from nashtune.memory.activations import Compute, kept_bytes, layer_bytes
from nashtune.memory.passes import Pass
from nashtune.memory.shape import ModelShape
from nashtune.spec.optimizerrules import MOMENTS

MIB = 2**20
PROCESS = 545 * 10**6
"""Python with torch (a build for CPUs), Lightning, transformers and the product, once training has begun; measured."""
KERNELS, WIDE_KERNELS = 220 * 10**6, 100 * 10**6
"""What oneDNN's products in bfloat16, and in float32 where it computes those, need on a CPU: a kernel for each of the
sizes that it has met last (see `nashtune.cpu`), and weights in its own order; measured."""
GPU_MEMORY = 80 * 2**30
"""Of an accelerator, which decides the size of its tiles; there is no asking it without torch."""
STAYS = 1.1
"""Of the memory of activations, what the C library still holds when the last gradients are computed, with what it lost
in holes: gradients that were allocated among activations keep it from giving pages back; measured."""

HOLES, FEW_HOLES = 0.4, 0.12
"""Of layers that checkpointing computes again one by one, the share whose memory the C library holds all the same:
gradients of weights lie between what was freed. Where MKL computes the products, and where oneDNN does. From two
shapes, of 8 and of 24 layers, each in passes of some 3,600 positions."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that a run's peak follows from, besides its passes.

    Args:
        shape: Of the policy.
        compute: How it is run.
        trained: Parameters that get a gradient.
        optimizer: Its name.
        references: Parameters of frozen models that stay in memory beside the policy.
        gpu: Whether the run is on an accelerator.
        scores: Whether the model has a score head and no LM head.
    """

    shape: ModelShape
    compute: Compute
    trained: int
    optimizer: str = "adamw"
    references: int = 0
    gpu: bool = False
    scores: bool = False


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Bytes at the peak, by what they are for.

    Args:
        parts: Name -> bytes; together the peak.
        largest: The pass that the peak is in.
    """

    parts: Mapping[str, int]
    largest: Pass

    @property
    def peak(self) -> int:
        """All together."""
        return sum(self.parts.values())


def predict(setting: Setting, passes: Iterable[Pass]) -> Prediction:
    """The peak over some passes, at least one."""
    return max((_at(setting, one) for one in passes), key=lambda found: found.peak)


def _at(setting: Setting, one: Pass) -> Prediction:
    shape, compute = setting.shape, setting.compute
    full = not compute.rank  # all weights are trained
    gradient = compute.weight if full and not one.accumulates else 4  # sums of several passes are float32
    gradients = setting.trained * gradient
    head = 0 if setting.scores or not full else shape.embedding * compute.weight  # gradient of the LM head
    # while a layer's backward runs, gradients of what it kept are there as well
    holes = FEW_HOLES if _by_onednn(compute) else HOLES
    layers = max(2.0, holes * shape.layers) if compute.checkpointing and not setting.gpu else 1
    activations = kept_bytes(shape, compute, one)
    activations += int(layers * layer_bytes(shape, compute, one.width) * one.positions)
    tiles = 0 if setting.scores else head_bytes(setting, one)
    # two moments compete: the backward of the LM head, where all activations are there, and that of the embedding,
    # where all gradients are, and once more that of a matrix that both share or that an earlier pass left
    before = (gradients if one.accumulates else 0) + activations + tiles + head
    twice = shape.embedding * compute.weight * (bool(head and shape.tied) + one.accumulates) if full else 0
    left = 0 if setting.gpu else int(STAYS * (activations + tiles))
    after = gradients + left + twice
    parts = {
        "process": 0 if setting.gpu else _process(compute),
        "weights": shape.parameters * compute.weight + (0 if full else 4 * setting.trained),
        "optimizer": setting.trained * MOMENTS[setting.optimizer],
        "references": setting.references * compute.weight,
    }
    if before >= after:
        moment = {
            "gradients": (gradients if one.accumulates else 0) + head,
            "activations": activations,
            "head": tiles,
        }
    else:
        moment = {"gradients": gradients + twice, "activations": left, "head": 0}  # its tiles are among what is left
    return Prediction(parts={**parts, **moment}, largest=one)


def _process(compute: Compute) -> int:
    """What a process is before its model."""
    return PROCESS + (0 if not _by_onednn(compute) else KERNELS if compute.product == 2 else WIDE_KERNELS)


def _by_onednn(compute: Compute) -> bool:
    """Whether oneDNN computes the products on this machine's CPU, and not MKL."""
    return compute.product == 2 or slow_in_float32()


def head_bytes(setting: Setting, one: Pass) -> int:
    """What the LM head adds at the start of its backward: hidden states, products that are kept, tiles in work."""
    shape, compute = setting.shape, setting.compute
    hidden = one.targets * shape.hidden * (compute.weight + 2 * compute.product)
    logits = one.targets * shape.vocabulary
    if compute.engine == "dense":
        return 3 * 4 * logits + hidden
    tile, kept = (GPU_MEMORY // 512, GPU_MEMORY // 64) if setting.gpu else (8 * MIB, 16 * MIB)
    tiles = min(4 * logits, tile) * (2 * 4 + compute.product) // 4
    return hidden + tiles + (4 * one.targets * shape.hidden if compute.rank else min(kept, logits))
