"""Predicted activations against what autograd saves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from nashtune.logprobs import get_engine
from nashtune.memory.activations import Compute, flops, kept_bytes
from nashtune.memory.passes import Pass
from nashtune.memory.shape import ModelShape
from nashtune.models.config import LoraSettings
from nashtune.models.loading import add_lora, enable_checkpointing
from nashtune.testing import token_batch

SHAPE = ModelShape(
    hidden=64,
    intermediate=160,
    layers=3,
    queries=64,
    keys=32,
    heads=4,
    vocabulary=300,
    parameters=0,
    tied=True,
)


def saved(model, engine_name: str, autocast: bool) -> tuple[int, Pass]:
    """Bytes of all tensors that autograd keeps, the parameters apart, and the pass."""
    engine = get_engine(engine_name)
    batch = token_batch([(40, 60), (40, 50), (40, 60), (40, 40)])
    seen: dict[int, tuple[int, torch.Tensor]] = {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen.setdefault(storage.data_ptr(), (storage.nbytes(), tensor))
        return tensor

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        with torch.no_grad():
            engine.forward(model, batch)  # what is looked at once per model
        batch = replace(batch, layout=engine.plan(batch))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            engine.forward(model, batch)
    assert batch.layout is not None
    one = Pass(positions=batch.layout.positions, targets=batch.layout.num_targets, width=100, accumulates=False)
    return sum(size for size, _ in seen.values()), one


@pytest.mark.parametrize("engine", ["tiled", "shared"])
@pytest.mark.parametrize(
    ("weight", "autocast", "rank"),
    [(4, False, 0), (4, True, 0), (2, False, 0), (4, False, 16), (4, True, 16), (2, False, 16), (2, True, 16)],
)
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_what_layers_keep(kind: str, engine: str, weight: int, autocast: bool, rank: int) -> None:
    made, settings = {"llama": (LlamaForCausalLM, LlamaConfig), "qwen3": (Qwen3ForCausalLM, Qwen3Config)}[kind]
    shape = replace(SHAPE, head_norms=kind == "qwen3")
    model = build(made, settings).to(torch.bfloat16 if weight == 2 else torch.float32)
    if rank:
        model = add_lora(model, LoraSettings(r=rank))
    found, one = saved(model, engine, autocast)
    compute = Compute(weight=weight, autocast=autocast, engine=engine, rank=rank)
    assert kept_bytes(shape, compute, one) == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("engine", ["tiled", "shared"])
def test_checkpointing_keeps_the_borders_of_layers(engine: str) -> None:
    model = build(LlamaForCausalLM, LlamaConfig)
    enable_checkpointing(model)
    found, one = saved(model, engine, autocast=False)
    compute = Compute(engine=engine)
    whole = kept_bytes(SHAPE, compute, one)
    one_layer = kept_bytes(replace(SHAPE, layers=1), compute, one) - kept_bytes(replace(SHAPE, layers=0), compute, one)
    borders = kept_bytes(SHAPE, replace(compute, checkpointing=True), one) - one_layer
    assert borders == pytest.approx(found, rel=0.15)
    assert borders + one_layer < 0.5 * whole


def test_checkpointing_costs_a_third_more_and_an_adapter_a_third_less() -> None:
    one = Pass(positions=1000, targets=0, width=1, accumulates=False)
    full = flops(SHAPE, Compute(), one)
    assert flops(SHAPE, Compute(checkpointing=True), one) / full == pytest.approx(4 / 3)
    assert flops(SHAPE, Compute(rank=8), one) / full == pytest.approx(2 / 3)


def build(made, settings):
    torch.manual_seed(0)
    config = settings(
        vocab_size=SHAPE.vocabulary,
        hidden_size=SHAPE.hidden,
        intermediate_size=SHAPE.intermediate,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=2,
        head_dim=16,
        use_cache=False,
    )
    return made(config).train()
