"""Packed engines on a GPU: each backend against `dense` there, and a step that waits for the device nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from nashtune.logprobs import EngineName, get_engine
from nashtune.logprobs.attention import Backend
from packed_batches import pairs
from packed_models import FAMILIES, make

BATCH = pairs([(150, 140, 30), (20, 3, 90), (9, 1, 1)])
SIZE = {"hidden_size": 128, "head_dim": 32, "max_position_embeddings": 512}


def score(model: Any, name: EngineName, **options: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    engine = get_engine(name, **options)
    batch = replace(BATCH, layout=engine.plan(BATCH)).to("cuda")
    model.zero_grad()
    sums = engine.logprobs(engine.forward(model, batch), batch).sums
    (sums * torch.linspace(-1, 2, len(sums), device="cuda")).sum().backward()
    return sums.detach(), {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backend", ["segments", "flex"])
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_equals_dense(family: str, backend: Backend) -> None:
    model = make(family, attention="eager" if family == "gemma2" else "sdpa", **SIZE).float().cuda()
    true, true_grads = score(model, "dense")
    for name in ("shared", "packed"):
        found, grads = score(model, name, attention_backend=backend)
        torch.testing.assert_close(found, true, rtol=1e-3, atol=2e-2)
        for key, grad in true_grads.items():
            assert float((grads[key] - grad).norm()) <= 2e-2 * float(grad.norm()) + 1e-4, key


@pytest.mark.parametrize("backend", ["segments", "flex", "varlen"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_bf16_is_as_near_to_float32_as_dense_is(family: str, backend: Backend) -> None:
    model = make(family, **SIZE).float().cuda()
    true, _ = score(model, "dense")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        dense, _ = score(model, "dense")
        found, _ = score(model, "packed" if backend == "varlen" else "shared", attention_backend=backend)
    assert float((found - true).norm()) < 2 * float((dense - true).norm())


@pytest.mark.parametrize("name", ["shared", "packed", "tiled"])
def test_no_step_waits_for_the_device(name: EngineName) -> None:
    model, engine = make("llama", **SIZE).float().cuda(), get_engine(name)
    engine.attach(model)
    batches = [replace(one, layout=engine.plan(one)).to("cuda") for one in (BATCH, pairs([(40, 30, 20)]))]
    for i, batch in enumerate([*batches, *batches]):
        torch.cuda.set_sync_debug_mode("error" if i >= len(batches) else "default")  # after the once-only checks
        try:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                sums = engine.logprobs(engine.forward(model, batch), batch).sums
            sums.sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_new_lengths_do_not_compile_anew() -> None:
    model = make("llama", **SIZE).float().cuda()
    engine = get_engine("shared", attention_backend="flex")
    for i in range(6):
        batch = pairs([(40 + 17 * i, 30 + i, 20)])
        batch = replace(batch, layout=engine.plan(batch)).to("cuda")
        engine.logprobs(engine.forward(model, batch), batch).sums.sum().backward()
        if i == 2:
            before = sum(torch._dynamo.utils.counters["frames"].values())
    assert sum(torch._dynamo.utils.counters["frames"].values()) == before
