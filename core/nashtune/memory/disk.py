"""What a run writes to disk: bytes of a checkpoint, how many lie there at once, and what its end adds.

Counted from config.json and the headers of weight files, as memory is.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.interfaces.schedule import Round, Snapshot
from nashtune.memory.shape import ModelShape, read_shape
from nashtune.models.locate import TOKENIZER_FILES, ModelFolder, locate, read_json, resolve_export
from nashtune.models.sizes import ADAPTER_BYTES, BYTES, adapter_parameters, tensor_shapes
from nashtune.spec.optimizerrules import MOMENTS

if TYPE_CHECKING:
    from nashtune.models.config import LoraSettings
    from nashtune.spec.model import HeadSpec

FLOAT32 = 4
STATES = {"adamw": 3, "adamw_8bit": 4, "rmsprop": 2}
"""Tensors that an optimiser keeps for each trained one: moments, its count of steps, or of 8 bits the scales."""
ENTRY = 300
"""Bytes that a tensor takes in a checkpoint besides its numbers: its name, its entry in the archive, padding to 64."""
REST = 18_000
"""Bytes of a checkpoint without weights: random generators, loops, the run's configuration. Both were measured."""
LINEAR = 7  # linear maps of a decoder layer


@dataclass(frozen=True, kw_only=True)
class Disk:
    """What a run writes into its folder, in bytes.

    Args:
        checkpoint: A whole checkpoint.
        least: What it takes at least, where the model is not quite what its files look like; 0 where that is not known.
        keep: Checkpoints that stay, `keep_checkpoints`.
        saves: How often the run saves at most; None where that is not known.
        snapshot: Weights under a name, in a game; 0 where there are none.
        snapshots: How many of them.
        export: The exported model.
        pushed: Weights that a game's sampler gives to another engine; 0 where it draws with the policy itself.
    """

    checkpoint: int
    least: int
    keep: int
    saves: int | None
    snapshot: int
    snapshots: int
    export: int
    pushed: int = 0

    @property
    def while_saving(self) -> int:
        """Before an old checkpoint goes there is one more than stay."""
        return self._stays + self.pushed + self._of(self.keep + 1) * self.checkpoint

    @property
    def while_pushing(self) -> int:
        """Weights that an engine has read go when it has the next ones."""
        return self._stays + 2 * self.pushed + self._of(self.keep) * self.checkpoint if self.pushed else 0

    @property
    def at_the_end(self) -> int:
        """With the exported model."""
        return self._stays + self.pushed + self._of(self.keep) * self.checkpoint + self.export

    @property
    def peak(self) -> int:
        """The largest of these."""
        return max(self.while_saving, self.while_pushing, self.at_the_end)

    @property
    def first(self) -> int:
        """What must fit before anything can be gone on with: a checkpoint at its least, in a game also its start."""
        start = self.least * self.snapshot // self.checkpoint if self.snapshots else 0
        return start + self.least

    @property
    def _stays(self) -> int:
        return self.snapshots * self.snapshot

    def _of(self, checkpoints: int) -> int:
        return checkpoints if self.saves is None else min(checkpoints, self.saves)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "checkpoint": self.checkpoint,
            "kept": self.keep,
            "while_saving": self.while_saving,
            "snapshots": self._stays,
            "pushed": self.pushed,
            "export": self.export,
            "at_the_end": self.at_the_end,
            "peak": self.peak,
        }


def disk_of(
    folder: ModelFolder,
    *,
    precision: str,
    lora: LoraSettings | None,
    optimizer: str,
    head: HeadSpec | None = None,
    critic: int = 0,
    rounds: Iterable[Round] = (),
    pushes: bool = False,
    keep: int = 1,
    saves: int | None = None,
) -> Disk | None:
    """What a run writes; the same for one file and for a folder of pieces.

    Args:
        folder: Of the policy.
        precision: `policy.precision`.
        lora: `policy.lora`.
        optimizer: Name of the spec's.
        head: The spec's, of a reward model.
        critic: Parameters of the critic, see `critic_parameters`.
        rounds: Of a game.
        pushes: Whether its sampler gives the weights to another engine.
        keep: `keep_checkpoints`.
        saves: How often the run saves at most, where that is known.

    Returns:
        None where the model has no safetensors files that say how large it is.

    Raises:
        InputError: config.json or a weight file cannot be read.
    """
    shapes, shape = _model_tensors(folder), read_shape(folder)
    if not shapes:
        return None
    score = head.members * shape.hidden if head is not None and shape is not None else 0
    if head is not None:
        shapes = {name: size for name, size in shapes.items() if not name.startswith(("lm_head", "score"))}
    whole = sum(map(math.prod, shapes.values()))
    width = BYTES[precision]
    adapter = lora is not None or folder.is_adapter
    if head is not None and head.trunk == "frozen":
        trained, tensors, least = 0, 0, 0
    elif lora is not None:
        trained, tensors = adapter_parameters(folder, lora), _adapter_tensors(shape, lora)
        least = 0 if _has_experts(folder) else trained  # which experts get an adapter, their files do not say
    elif folder.is_adapter:
        sizes = [size for _, size in tensor_shapes(folder.path)]
        trained = least = sum(map(math.prod, sizes))
        tensors = len(sizes)
    else:
        trained, tensors = whole, len(shapes)
        # a folder may hold more than the model that is trained: a vision tower, a second copy
        least = min(whole, shape.embedding + shape.linear) if shape is not None else 0
    in_float32 = score + critic
    kept = ADAPTER_BYTES if adapter else width
    weights = trained * kept + in_float32 * FLOAT32
    moments = (trained + in_float32) * MOMENTS[optimizer]
    rounds = list(rounds)
    phases = [phase for one in rounds for phase in one.phases]
    names = {phase.name: phase.average is not None for phase in phases if isinstance(phase, Snapshot)}
    averages = (trained + in_float32) * FLOAT32 if any(names.values()) else 0
    tensors += bool(score) + 2 * bool(critic)
    count = tensors * (1 + STATES[optimizer] + bool(averages))
    merged = lora is not None and folder.is_adapter
    model = whole * width if not adapter or merged else trained * ADAPTER_BYTES
    return Disk(
        checkpoint=weights + moments + averages + ENTRY * count + REST,
        least=least * (kept + MOMENTS[optimizer]),
        keep=keep,
        saves=saves,
        snapshot=weights if rounds else 0,
        snapshots=1 + sum(not averaged for averaged in names.values()) if rounds else 0,
        export=model + score * FLOAT32 + _beside(folder),
        pushed=whole * width if pushes else 0,
    )


def critic_parameters(init: str, folder: ModelFolder, path: str | None) -> int:
    """Of what a policy-gradient method trains besides the policy.

    Args:
        init: "zero", a linear head, or "reward_model", a copy of the oracle's.
        folder: Of the policy.
        path: The oracle's folder.

    Raises:
        InputError: the oracle's model is not there.
    """
    if init == "zero" or path is None:
        shape = read_shape(folder)
        return shape.hidden + 1 if shape is not None else 0
    option = "spec.oracle.path"
    own = _model_tensors(locate(str(resolve_export(path, option)), option))
    return sum(math.prod(size) for name, size in own.items() if not name.startswith("lm_head"))


def _model_tensors(folder: ModelFolder) -> dict[str, list[int]]:
    """Name -> shape of the base model's weights, an LM head that shares the embedding left out."""
    config = read_json(folder.base / "config.json", "policy.path")
    shapes = dict(tensor_shapes(folder.base))
    if config.get("tie_word_embeddings", False):
        shapes.pop("lm_head.weight", None)
    return shapes


def _adapter_tensors(shape: ModelShape | None, lora: LoraSettings) -> int:
    maps = LINEAR if lora.target_modules == "all-linear" else len(lora.target_modules)
    return 2 * maps * (shape.layers if shape is not None else 1)


def _has_experts(folder: ModelFolder) -> bool:
    config = read_json(folder.base / "config.json", "policy.path")
    return any("expert" in key for key in {**config, **(config.get("text_config") or {})})


def _beside(folder: ModelFolder) -> int:
    """The tokenizer's files, which are copied into the export."""
    files = (folder.tokenizer / name for name in TOKENIZER_FILES)
    return sum(file.stat().st_size for file in files if file.is_file())


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder lies or will lie; what the system reserves for its administrator is not."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
