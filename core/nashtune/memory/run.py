"""From a run's options and the lengths of its rows to its predicted peak, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nashtune.data.order import BatchOrder
from nashtune.data.pass_sizes import ACCELERATOR_TOKENS, cpu_tokens
from nashtune.data.serve import DataKind
from nashtune.memory.activations import Compute, flops
from nashtune.memory.lengths import RowLengths
from nashtune.memory.passes import Batching, Pass, training_passes
from nashtune.memory.prediction import Prediction, Setting, predict
from nashtune.memory.shape import ModelShape, read_shape, trained_parameters
from nashtune.models.locate import ModelFolder, locate, read_json
from nashtune.models.sizes import BYTES
from nashtune.spec.gamerules import attribute
from nashtune.spec.model import Spec
from nashtune.spec.runplan import lora_of
from nashtune.spec.runranks import on_accelerator

if TYPE_CHECKING:
    from nashtune.models.config import LoraSettings

PACKABLE = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text")
"""Model types that `engine: auto` packs; of others it sees in the loaded model, and they are counted with padding."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a run needs.

    Args:
        prediction: At its peak.
        otherwise: The same run with `policy.gradient_checkpointing` the other way round.
        work: Floating-point operations of the largest pass.
        otherwise_work: The same, with the other setting.
        checkpointing: The run's own setting.
        gpu: Whether it is about an accelerator's memory.
    """

    prediction: Prediction
    otherwise: Prediction
    work: int
    otherwise_work: int
    checkpointing: bool
    gpu: bool

    def lines(self) -> list[str]:
        """For people."""
        parts = ", ".join(f"{name} {gib(part)}" for name, part in self.prediction.parts.items() if part >= 5 * 10**6)
        where = "allocated on the device, taken for one of 80 GiB," if self.gpu else "of the process"
        one = self.prediction.largest
        other = "without" if self.checkpointing else "with"
        return [
            f"memory: about {gib(self.prediction.peak)} GiB {where} at the peak (in GiB: {parts}); the largest "
            f"pass has {one.positions} positions and {one.targets} completion tokens",
            f"memory {other} policy.gradient_checkpointing: {gib(self.otherwise.peak)} GiB, and "
            f"{self.otherwise_work / self.work:.2f}x the floating-point operations",
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: bytes."""
        return {
            "peak": self.prediction.peak,
            "parts": dict(self.prediction.parts),
            "positions": self.prediction.largest.positions,
            "completion_tokens": self.prediction.largest.targets,
            "gradient_checkpointing": self.checkpointing,
            "peak_otherwise": self.otherwise.peak,
            "work": self.work,
            "work_otherwise": self.otherwise_work,
        }


def gib(number: int) -> str:
    """Bytes in GiB, without the unit."""
    return f"{number / 2**30:.2f}"


def memory_of(
    spec: Spec,
    kind: DataKind,
    lengths: RowLengths,
    folder: ModelFolder,
    options: Mapping[str, Any],
    *,
    engine: str | None,
    seed: int,
) -> Memory | None:
    """The peak of an offline run on one device.

    Args:
        spec: Of the run.
        kind: What the loss trains on.
        lengths: Of the training rows.
        folder: Of the policy.
        options: Of the run by section, defaults filled in.
        engine: Of the run, where it says so.
        seed: Of the order of rows.

    Returns:
        None where the model's files do not say how large it is, and where a frozen trunk runs once, before training.
    """
    shape = read_shape(folder)
    if shape is None or (spec.head is not None and spec.head.trunk == "frozen"):
        return None
    data, policy, trainer = options["data"], options["policy"], options["trainer"]
    lora = lora_of(policy)
    gpu = on_accelerator(trainer)
    scores = attribute(spec.loss, "reads", "logprobs") == "scores"
    compute = Compute(
        weight=BYTES[policy["precision"]],
        autocast=str(trainer.get("precision")) in ("bf16-mixed", "16-mixed"),
        engine=_engine(engine, folder),
        attention=policy["attention"],
        rank=_rank(folder, lora),
        checkpointing=policy["gradient_checkpointing"],
    )
    setting = Setting(
        shape=shape,
        compute=compute,
        trained=trained_parameters(shape, folder, lora),
        optimizer=spec.optimizer.name,
        references=_reference_parameters(spec, shape, lora),
        gpu=gpu,
        scores=scores,
    )
    compares = attribute(spec.loss, "compares_rows", False)
    usual = (
        ACCELERATOR_TOKENS
        if gpu
        else cpu_tokens(layers=shape.layers, hidden=shape.hidden, intermediate=shape.intermediate)
    )
    passes = _passes(kind, lengths, data, trainer, compute.engine, usual, scores, compares, seed)
    other = replace(setting, compute=replace(compute, checkpointing=not compute.checkpointing))
    prediction = predict(setting, passes)
    return Memory(
        prediction=prediction,
        otherwise=predict(other, passes),
        work=flops(shape, compute, prediction.largest),
        otherwise_work=flops(shape, other.compute, prediction.largest),
        checkpointing=compute.checkpointing,
        gpu=gpu,
    )


def _engine(asked: str | None, folder: ModelFolder) -> str:
    if asked not in (None, "auto"):
        return asked
    config = read_json(folder.base / "config.json", "policy.path")
    return "shared" if config.get("model_type") in PACKABLE else "tiled"


def _rank(folder: ModelFolder, lora: LoraSettings | None) -> int:
    if lora is not None:
        return int(lora.r)
    return int(read_json(folder.path / "adapter_config.json", "policy.path").get("r", 0)) if folder.is_adapter else 0


def _reference_parameters(spec: Spec, shape: ModelShape, lora: LoraSettings | None) -> int:
    """Of the frozen models that stay in memory."""
    total = 0
    for reference in spec.references.values():
        if reference.name == "base" and lora is None:
            total += shape.parameters
        elif reference.name == "checkpoint":
            other = read_shape(locate(str(reference.args["path"]), "references"))
            total += other.parameters if other is not None else shape.parameters
    return total


def _passes(
    kind: DataKind,
    lengths: RowLengths,
    data: Mapping[str, Any],
    trainer: Mapping[str, Any],
    engine: str,
    usual: int,
    scores: bool,
    compares: bool,
    seed: int,
) -> list[Pass]:
    lengths = _fitted(_shown(lengths) if kind == "comparisons" else lengths, data)
    accumulate, steps = trainer.get("accumulate_grad_batches", 1), trainer.get("max_steps", -1)
    order = BatchOrder(
        size=len(lengths), batch_size=data["batch_size"], seed=seed, least=2 if kind == "examples" else 1
    )
    batching = Batching(
        engine=engine,
        budget=None if compares else data.get("batch_tokens") or usual,
        mismatched=kind == "examples",
        accumulates=accumulate > 1,
    )
    found = training_passes(lengths, order, batching, steps * accumulate if steps > 0 else None)
    return [replace(one, targets=0) if scores else one for one in found]


def _shown(lengths: RowLengths) -> RowLengths:
    """A comparison's rows: both answers stand in the prompt, in both orders, and one token names the better one."""
    prompt, one = np.repeat(lengths.prompt + lengths.total, 2), np.ones(2 * len(lengths), dtype=np.int64)
    return RowLengths(prompt=prompt, longest=one, total=2 * one, completions=2 * one)


def _fitted(lengths: RowLengths, data: Mapping[str, Any]) -> RowLengths:
    """Without what is dropped or cut for its length."""
    most, prompts = data["max_length"], data["max_prompt_length"] or data["max_length"]
    keeps = lengths.longest < most
    if data["overflow"] == "drop":
        keeps &= (lengths.prompt + lengths.longest <= most) & (lengths.prompt <= prompts)
    if not keeps.any():
        keeps[:] = True
    parts = {name: value[keeps] for name, value in vars(lengths).items()}
    parts["prompt"] = np.minimum(np.minimum(parts["prompt"], prompts), np.maximum(1, most - parts["longest"]))
    return RowLengths(**parts)
