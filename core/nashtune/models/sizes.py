"""How large a policy is, from its files' headers and without torch: what is known of a run before it starts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nashtune.cache import cache_root
from nashtune.demo.model import FOLDER_NAME
from nashtune.errors import InputError
from nashtune.models.locate import ModelFolder, read_json

if TYPE_CHECKING:
    from nashtune.models.config import LoraSettings

BYTES = {"fp32": 4, "bf16": 2}
EMBEDDINGS = ("embed", "wte", "wpe", "lm_head")  # parts of the names of tables that "all-linear" leaves alone
ADAPTER_BYTES = 4  # an adapter is kept in float32


def ready_demo(path: str) -> ModelFolder | None:
    """The folder of `demo:smollm2` where an earlier run has unpacked it; nothing is unpacked here."""
    folder = cache_root() / FOLDER_NAME
    if path != "demo:smollm2" or not (folder / "config.json").is_file():
        return None
    return ModelFolder(path=folder, base=folder, tokenizer=folder)


def context_length(folder: ModelFolder, option: str = "policy.path") -> int | None:
    """Tokens that a model can read (`max_position_embeddings`), where its configuration says so.

    Raises:
        InputError: config.json is missing or cannot be read.
    """
    config = read_json(folder.base / "config.json", option)
    found = config.get("max_position_embeddings", (config.get("text_config") or {}).get("max_position_embeddings"))
    return found if isinstance(found, int) else None


def trainable_bytes(folder: ModelFolder, precision: str, lora: LoraSettings | None) -> int | None:
    """Size of what is trained, which is what a snapshot holds; None where no safetensors file says it.

    Args:
        folder: Of the policy.
        precision: `policy.precision`.
        lora: `policy.lora`; a fresh adapter's size follows from the shapes of the layers it goes on.
    """
    own = folder.path if folder.is_adapter and lora is None else folder.base
    shapes = list(tensor_shapes(own))
    if not shapes:
        return None
    if lora is not None:
        return ADAPTER_BYTES * adapter_parameters(folder, lora)
    return (ADAPTER_BYTES if folder.is_adapter else BYTES[precision]) * sum(math.prod(shape) for _, shape in shapes)


def adapter_parameters(folder: ModelFolder, lora: LoraSettings) -> int:
    """Parameters of a fresh adapter, from the shapes of the layers that it goes on."""
    shapes = tensor_shapes(folder.base)
    return int(lora.r) * sum(sum(shape) for name, shape in shapes if _gets_adapter(name, shape, lora))


def tensor_shapes(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """(name, shape) of each tensor in the safetensors files of a folder."""
    return (entry for file in sorted(folder.glob("*.safetensors")) for entry in _shapes(file))


def _shapes(file: Path) -> Iterator[tuple[str, list[int]]]:
    """(name, shape) of each tensor: the header is JSON behind its own length in eight bytes."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:  # a text's first bytes, read as a length, are more than any memory holds
            raise InputError(f"{file} is no safetensors file; if it is a pointer of Git LFS, run `git lfs pull`")
        try:
            header = json.loads(stream.read(length))
            shapes = [(str(name), entry["shape"]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"{file} is no safetensors file, or was altered: {error}; get it anew") from error
    return iter(shapes)


def _gets_adapter(name: str, shape: list[int], lora: LoraSettings) -> bool:
    if len(shape) != 2:
        return False
    module = name.removesuffix(".weight")
    if lora.target_modules == "all-linear":
        return not any(part in module for part in EMBEDDINGS)
    return any(module == target or module.endswith(f".{target}") for target in lora.target_modules)
