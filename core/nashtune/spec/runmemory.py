"""The memory that `nashtune check` predicts of a run: on one device, and of each of several processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nashtune.data.serve import DataKind
from nashtune.models.sizes import BYTES
from nashtune.spec.model import Spec
from nashtune.spec.run import Runs
from nashtune.spec.runplan import lora_of
from nashtune.spec.runranks import Ranks, ranks_of
from nashtune.spec.types import Typed

if TYPE_CHECKING:
    from nashtune.memory.lengths import Measure
    from nashtune.memory.prediction import Prediction
    from nashtune.memory.run import Memory
    from nashtune.memory.shape import ModelShape
    from nashtune.models.locate import ModelFolder

CUT_UP = ("weights", "gradients", "optimizer", "references")
"""Parts of a prediction of which FSDP2 leaves each process its share."""
AT_ONCE = 2
"""Decoder layers that are whole at a time: while one computes, the next one is gathered."""


def predicted(
    spec: Spec, kind: DataKind, measure: Measure, folder: ModelFolder, options: Mapping[str, Any], runs: Runs
) -> tuple[Memory | None, list[str]]:
    """The predicted peak, and what to say of it; None where model, tokenizer or devices do not say enough.

    Args:
        spec: Of the run.
        kind: What the loss trains on.
        measure: Sizes of the training rows.
        folder: Of the policy.
        options: Of the run by section, defaults filled in.
        runs: The run files.
    """
    from nashtune.memory.run import memory_of
    from nashtune.memory.shape import read_shape

    lengths = measure.lengths(folder, chat=options["data"]["template"] == "chat")
    memory = None
    if lengths is not None:
        given = {name: runs.data.get(name) for name in ("engine", "seed_everything")}
        plain = {name: value.value if isinstance(value, Typed) else value for name, value in given.items()}
        seed = int(plain["seed_everything"] or 0)
        memory = memory_of(spec, kind, lengths, folder, options, engine=plain["engine"], seed=seed)
    shape = read_shape(folder) if memory is not None else None
    if memory is None or shape is None:
        return None, ["memory: not predicted for this model or method"]
    ranks = ranks_of(options["trainer"])
    if ranks.kind in ("deepspeed", "other"):
        return None, ["memory: not predicted for this strategy"]
    if ranks.kind != "fsdp2" or ranks.processes == 1:
        several = (ranks.processes or 1) > 1
        return memory, [*memory.lines(), *(["memory: of each process; all of them hold everything"] if several else [])]
    if ranks.processes is None:
        return None, ["memory: not predicted under fsdp2 where trainer.devices does not say how many there are"]
    weight = BYTES[options["policy"]["precision"]]
    full = lora_of(options["policy"]) is None and not folder.is_adapter
    cut = of_each(memory, shape, weight=weight, full=full, processes=ranks.processes)
    return cut, [*cut.lines(), _said(ranks, shape, weight)]


def of_each(memory: Memory, shape: ModelShape, *, weight: int, full: bool, processes: int) -> Memory:
    """What each process holds under FSDP2, from what one device would.

    Of weights, gradients, optimiser state and references each has 1/processes. On top comes what is gathered: two
    decoder layers, and embedding and LM head, which stay from a forward pass to its backward; where all weights are
    trained, also their gradients in float32, before they are added up over the processes and cut up. Activations and
    tiles of the LM head stay as they are.

    Args:
        memory: On one device.
        shape: Of the policy.
        weight: Bytes of a weight.
        full: Whether all weights are trained, and not an adapter.
        processes: Over how many it is cut up.
    """
    whole = gathered_parameters(shape) * (weight + (4 if full else 0))

    def cut(one: Prediction) -> Prediction:
        parts = {name: -(-part // processes) if name in CUT_UP else part for name, part in one.parts.items()}
        return replace(one, parts={**parts, "gathered": whole})

    return replace(memory, prediction=cut(memory.prediction), otherwise=cut(memory.otherwise))


def gathered_parameters(shape: ModelShape) -> int:
    """Weights that a process has in whole at a time: two decoder layers, the embedding and the LM head."""
    outside = shape.embedding * (1 if shape.tied else 2)
    layers = max(0, shape.parameters - outside)
    return outside + min(AT_ONCE, shape.layers) * -(-layers // shape.layers)


def _said(ranks: Ranks, shape: ModelShape, weight: int) -> str:
    from nashtune.memory.run import gib

    return (
        f"memory: of each of {ranks.processes} processes under fsdp2: 1/{ranks.processes} of weights, gradients, "
        f"optimiser state and references, and what is gathered at a time (a formula, see the page on many GPUs; not "
        f"measured). Rank 0 first reads the whole model into main memory: {gib(shape.parameters * weight)} GiB"
    )
