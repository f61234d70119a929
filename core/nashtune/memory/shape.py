"""The sizes of a model that its memory follows from: config.json and the headers of its weight files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nashtune.models.locate import ModelFolder, read_json
from nashtune.models.sizes import adapter_parameters, tensor_shapes

if TYPE_CHECKING:
    from nashtune.models.config import LoraSettings

FOUR_NORMS = ("gemma2", "gemma3", "gemma3_text")  # a norm before and behind attention and MLP; others have two in all
HEAD_NORMS = ("qwen3", "gemma3", "gemma3_text", "olmo2")  # queries and keys are normalised too


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer.

    Args:
        hidden: Width of the residual stream.
        intermediate: Width of the MLP.
        layers: Decoder layers.
        queries: Width of all query heads together.
        keys: Width of all key heads together; values are as wide.
        heads: Query heads.
        vocabulary: Tokens that have an embedding.
        parameters: All of them, an embedding that the LM head shares once.
        tied: Whether embedding and LM head are one matrix.
        norms: Of a layer's residual stream.
        head_norms: Whether queries and keys are normalised.
    """

    hidden: int
    intermediate: int
    layers: int
    queries: int
    keys: int
    heads: int
    vocabulary: int
    parameters: int
    tied: bool
    norms: int = 2
    head_norms: bool = False

    @property
    def embedding(self) -> int:
        """Parameters of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def linear(self) -> int:
        """Parameters of the layers: what every position is multiplied by, the LM head apart."""
        attention = self.hidden * (2 * self.queries + 2 * self.keys)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)


def read_shape(folder: ModelFolder) -> ModelShape | None:
    """Of the base model behind a policy; None where config.json does not have a decoder's sizes, or no safetensors.

    Raises:
        InputError: config.json is missing or cannot be read.
    """
    config = read_json(folder.base / "config.json", "policy.path")
    text: Mapping[str, Any] = config.get("text_config") or config
    shapes = dict(tensor_shapes(folder.base))
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    sizes = [text.get(name) for name in names]
    if not shapes or not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    hidden, intermediate, layers, heads, vocabulary = (int(size or 0) for size in sizes)
    width = text.get("head_dim") or hidden // heads
    kind = str(text.get("model_type"))
    return ModelShape(
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        queries=heads * width,
        keys=(text.get("num_key_value_heads") or heads) * width,
        heads=heads,
        vocabulary=vocabulary,
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        tied=not any(name.startswith("lm_head") for name in shapes),
        norms=4 if kind in FOUR_NORMS else 2,
        head_norms=kind in HEAD_NORMS,
    )


def trained_parameters(shape: ModelShape, folder: ModelFolder, lora: LoraSettings | None) -> int:
    """Parameters that get a gradient: all of them, or those of an adapter."""
    if lora is not None:
        return adapter_parameters(folder, lora)
    if folder.is_adapter:
        return sum(math.prod(size) for _, size in tensor_shapes(folder.path))
    return shape.parameters
