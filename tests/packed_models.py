"""Tiny random models of each family that packed passes are tested on, and exact norms for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

SIZE = {
    "vocab_size": 262,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 6
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True},
    "qwen3": {"layer_types": ["sliding_attention", "full_attention"], "use_sliding_window": True},
    "mistral": {"sliding_window": WINDOW},
    "gemma": {},
    "gemma2": {"sliding_window": WINDOW, "attn_logit_softcapping": 3.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
}


def make(family: str, *, attention: str = "sdpa", seed: int = 0, **settings: Any) -> Any:
    """A model of a family in float64, with attention sharp enough that a wrong mask shows."""
    extra = {"sliding_window": WINDOW} if "layer_types" in FAMILIES.get(family, {}) else {}
    config = AutoConfig.for_model(family, **(SIZE | extra | FAMILIES.get(family, {}) | settings))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).double()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "q_proj.weight" in name or "k_proj.weight" in name:
                    weight.mul_(20)
    return exact(model.train())


def exact(model: Any) -> Any:
    """Norms in the weights' own dtype: transformers computes them in float32, which hides errors below 1e-7."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                setattr(module, name, _ExactNorm(child))
    return model


class _ExactNorm(nn.Module):
    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight = norm.weight
        self.shift = 1.0 if type(norm).__name__.startswith("Gemma") else 0.0
        self.eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", 1e-6))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.eps) * (self.shift + self.weight)
