"""From a causal LM to its backbone and to the map from hidden states to logits.

The tiled engine runs that map itself. Models scale or cap their logits in a handful of ways; what is known is applied
exactly, what is not is refused, and the first batch through a model is checked against the model's own logits.

Legend: N = sequences, T = positions, M = tokens, H = hidden size, V = vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from nashtune.errors import InputError
from nashtune.interfaces.batch import TokenBatch
from nashtune.logprobs.lora_head import LowRank, joined, split_adapters
from nashtune.logprobs.positions import model_inputs
from nashtune.models.mode import frozen_mode
from nashtune.sharding.tensors import gather

USE_DENSE = "; run with the engine `dense`, which uses the model's own logits"

# config attribute that multiplies (+1) or divides (-1) the logits, by model type
SCALES: dict[str, tuple[str, int]] = {
    "cohere": ("logit_scale", 1),
    "cohere2": ("logit_scale", 1),
    "cohere2_moe": ("logit_scale", 1),
    "cohere_compass_text": ("logit_scale", 1),
    "falcon_h1": ("lm_head_multiplier", 1),
    "granite": ("logits_scaling", -1),
    "granite_swa": ("logits_scaling", -1),
    "granitemoe": ("logits_scaling", -1),
    "granitemoe_swa": ("logits_scaling", -1),
    "granitemoehybrid": ("logits_scaling", -1),
    "granitemoeshared": ("logits_scaling", -1),
    "hyperclovax": ("logits_scaling", 1),
    "minicpm3": ("logits_scaling", -1),
}
SCALE_NAMES = (
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
    "logits_mup_width_multiplier",
)
CAP_NAMES = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


@dataclass(frozen=True, kw_only=True)
class Head:
    """logits = cap(scale * (hidden @ weight.T + bias)), with cap(z) = softcap * tanh(z / softcap), and LoRA on it.

    Args:
        weight: (V, H), the embedding itself where the two are tied.
        bias: (V,).
        scale: Factor on the logits.
        softcap: Bound on the logits; None where there is none.
        compute_dtype: Of the matrix product: autocast's dtype where it is on, else that of the weight.
        adapters: Low-rank updates of the weight.
    """

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None
    compute_dtype: torch.dtype
    adapters: tuple[LowRank, ...] = ()

    def inputs(self, hidden_MH: Tensor) -> Tensor:
        """What multiplies the weight and, beside it, `up` (M, H + R). Draws the adapters' dropout."""
        return joined([hidden_MH, *(adapter.low(hidden_MH) for adapter in self.adapters)])

    def up(self) -> Tensor | None:
        """The adapters' factors of the vocabulary (V, R); None without adapters."""
        return joined([adapter.up for adapter in self.adapters]) if self.adapters else None

    def full_bias(self) -> Tensor | None:
        """The bias (V,) with that of the adapters."""
        total = self.bias
        for adapter in self.adapters:
            if adapter.bias is not None:
                part = adapter.bias * adapter.scaling
                total = part if total is None else total + part
        return total

    def logits(self, hidden_MH: Tensor) -> Tensor:
        """Full-vocabulary logits (M, V) in float32, or in float64 for a float64 model. For a few tokens."""
        with torch.autocast(hidden_MH.device.type, enabled=False):
            up, bias = self.up(), self.full_bias()
            weight = joined([part.to(self.compute_dtype) for part in (self.weight, up) if part is not None])
            bias = None if bias is None else bias.to(self.compute_dtype)
            logits = nn.functional.linear(self.inputs(hidden_MH).to(self.compute_dtype), weight, bias)
            logits = logits.to(accumulation_dtype(self.compute_dtype)) * self.scale
            return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def base_model(model: Any) -> Any:
    """The transformers model inside a peft wrapper (adapters stay in its layers), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def backbone(model: nn.Module) -> nn.Module:
    """The part of a causal LM that ends in hidden states.

    Raises:
        InputError: the model does not keep the two apart.
    """
    base = base_model(model)
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else None
    if not isinstance(decoder, nn.Module) or decoder is base:
        raise InputError(f"{type(base).__name__} has no backbone apart from its LM head{USE_DENSE}")
    return decoder


def find_head(model: nn.Module) -> Head:
    """The LM head of a causal LM as the engine computes it.

    Raises:
        InputError: the head is not a linear layer with or without LoRA, or the model treats its logits in a way that is
            not known here.
    """
    base = base_model(model)
    gather(base)
    name = type(base).__name__
    layer = base.get_output_embeddings()
    if hasattr(layer, "modules_to_save") and hasattr(layer, "original_module"):  # peft: a trained copy of the head
        active = layer.active_adapters[0] if layer.active_adapters else None
        layer = layer.original_module if layer.disable_adapters or active is None else layer.modules_to_save[active]
    layer, adapters = split_adapters(layer, USE_DENSE)
    if not isinstance(layer, nn.Linear):
        raise InputError(f"the LM head of {name} is {type(layer).__name__}, not a linear layer{USE_DENSE}")
    scale, softcap = logit_transform(base.config)
    device = layer.weight.device.type
    autocast = torch.is_autocast_enabled(device)
    return Head(
        weight=layer.weight,
        bias=layer.bias,
        scale=scale,
        softcap=softcap,
        compute_dtype=torch.get_autocast_dtype(device)
        if autocast and layer.weight.dtype != torch.float64
        else layer.weight.dtype,
        adapters=adapters,
    )


def logit_transform(config: Any) -> tuple[float, float | None]:
    """Scale and soft cap that a model's config puts on its logits.

    Raises:
        InputError: the config asks for one that is not known for this model type.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    scale = 1.0
    attribute, power = SCALES.get(text.model_type, ("", 0))
    if attribute and getattr(text, attribute, None) is not None:
        scale = float(getattr(text, attribute)) ** power
    for name in SCALE_NAMES:
        value = getattr(text, name, None)
        # recurrent models and encoders use some of these names for other things, but only a number can scale logits
        if name != attribute and isinstance(value, int | float) and float(value) != 1.0:
            raise InputError(f"config.json: {name}={value} of model type {text.model_type!r} is not known{USE_DENSE}")
    caps = {float(value) for name in CAP_NAMES if (value := getattr(text, name, None)) is not None}
    if len(caps) > 1:
        raise InputError(f"config.json: two soft caps on the logits, {sorted(caps)}{USE_DENSE}")
    return scale, caps.pop() if caps else None


_checked: WeakSet[nn.Module] = WeakSet()


def check_head(model: nn.Module, batch: TokenBatch) -> None:
    """Once per model: compares the head's logits with the model's own on the first tokens of a batch.

    Raises:
        InputError: they differ, so the model does something to its hidden states or logits that is not known here.
    """
    if model in _checked:
        return
    base = base_model(model)
    few = replace(
        batch,
        input_ids=batch.input_ids[:1, :8],
        attention_mask=batch.attention_mask[:1, :8],
        completion_mask=batch.completion_mask[:1, :8],
    )
    with frozen_mode(model):
        inputs = model_inputs(base, few)
        head = find_head(model)
        expected = base(**inputs).logits.to(accumulation_dtype(head.compute_dtype))
        found = head.logits(backbone(model)(**inputs).last_hidden_state)
    tolerance = TOLERANCE[head.compute_dtype] * max(1.0, float(expected.abs().max()))
    if found.shape != expected.shape or not bool(((found - expected).abs() <= tolerance).all()):
        raise InputError(
            f"{type(base).__name__} does not map hidden states to logits by its LM head alone "
            f"(scale {head.scale}, soft cap {head.softcap}){USE_DENSE}"
        )
    _checked.add(model)
