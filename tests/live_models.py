"""Policies that tests of samplers decode, with next-token probabilities that are known or at least uneven."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from nashtune.interfaces.sampler import Surroundings
from nashtune.models.policy import HFPolicy, PolicyConfig


class Live:
    """A policy around a model that a test made, with a tokenizer."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.policy = HFPolicy(PolicyConfig(path=str(folder)))
        self.policy.model = model
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @property
    def model(self) -> Any:
        return self.policy.loaded()

    def surroundings(self, **more: Any) -> Surroundings:
        return Surroundings(policy=self.policy, tokenizer=self.tokenizer, **more)

    def attached(self, sampler: Any, **more: Any) -> Any:
        sampler.attach(self.surroundings(**more))
        return sampler


def sharpened(folder: Path, dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
    """A random model is nearly uniform; this one prefers some tokens, by up to a factor of 1e4."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.lm_head.weight.mul_(20.0)
        if seed:
            for weight in model.parameters():
                weight.mul_(1 + 0.3 * torch.randn(weight.shape, generator=draw, dtype=weight.dtype))
    return model


def bigram_model(table: Sequence[Sequence[float]]) -> Any:
    """A Llama whose next-token probabilities are `table[last token]`, to float32 precision.

    Attention and MLP give nothing; embeddings are one-hot, and the head reads the row.
    """
    size = len(table)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=4 * size,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.model.embed_tokens.weight[:, :size] = 1000.0 * torch.eye(size)  # large: the norm's epsilon is nothing
        logits = torch.tensor(table, dtype=torch.float64).log().clamp_min(-60.0)
        model.lm_head.weight.zero_()
        model.lm_head.weight[:, :size] = (logits.T / (4 * size) ** 0.5).float()
    return model
