"""How many positions of rows are computed at once where a run says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from nashtune.data.pass_sizes import ACCELERATOR_TOKENS, CPU_BYTES, CPU_TOKENS, MOST_CPU_TOKENS, cpu_tokens
from nashtune.data.passes import pass_tokens
from nashtune.memory.activations import Compute, layer_bytes
from nashtune.memory.shape import ModelShape

CPU = torch.device("cpu")


def test_a_large_model_has_small_passes() -> None:
    assert cpu_tokens(layers=2, hidden=64, intermediate=128) == MOST_CPU_TOKENS
    assert cpu_tokens(layers=8, hidden=384, intermediate=1024) == MOST_CPU_TOKENS  # 30M parameters
    assert cpu_tokens(layers=30, hidden=576, intermediate=1536) == CPU_TOKENS  # 135M
    assert cpu_tokens(layers=32, hidden=4096, intermediate=11008) == CPU_TOKENS
    assert CPU_TOKENS < cpu_tokens(layers=16, hidden=512, intermediate=1408) < MOST_CPU_TOKENS


def test_the_bytes_of_a_position_are_about_what_autograd_keeps() -> None:
    shape = ModelShape(
        hidden=512, intermediate=1408, layers=16, queries=512, keys=128, heads=8, vocabulary=1, parameters=1, tied=True
    )  # fmt: skip
    kept = 16 * layer_bytes(shape, Compute(), 300) * cpu_tokens(layers=16, hidden=512, intermediate=1408)
    assert kept == pytest.approx(CPU_BYTES, rel=0.15)


def test_what_is_asked_goes_first_and_an_accelerator_has_one_size(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny))
    assert pass_tokens(100, CPU, model) == 100
    assert pass_tokens(None, torch.device("cuda"), model) == ACCELERATOR_TOKENS
    assert pass_tokens(None, CPU, model) == MOST_CPU_TOKENS
    assert pass_tokens(None, CPU) == CPU_TOKENS


def test_a_config_with_other_names() -> None:
    config = GPT2Config(n_layer=24, n_embd=1024, n_head=16, vocab_size=10)
    with torch.device("meta"):
        model = GPT2LMHeadModel(config)
    assert pass_tokens(None, CPU, model) == cpu_tokens(layers=24, hidden=1024, intermediate=4096) == CPU_TOKENS
