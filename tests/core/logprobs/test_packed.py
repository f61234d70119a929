"""`shared` and `packed` equal `dense` in value and gradient, and sequences of a batch do not meet."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from nashtune.interfaces import TokenBatch
from nashtune.logprobs import EngineName, get_engine
from nashtune.models.config import LoraSettings
from nashtune.models.loading import add_lora, enable_checkpointing
from nashtune.testing import tiny_model
from packed_batches import batch_of, pairs, random_batch
from packed_models import FAMILIES, make

Score = Callable[..., Any]
PACKED: list[EngineName] = ["shared", "packed"]
BACKENDS = ["rows", "segments"]


MIXED = pairs([(12, 9, 4), (5, 1, 12), (1, 6, 3), (9, 1, 1)])
LONG = pairs([(150, 140, 30), (20, 3, 300)])


def assert_equal(score: Score, model: Any, batch: TokenBatch, engine: Any, tolerance: float = 1e-9) -> None:
    dense, dense_grads = score(get_engine("dense"), model, batch)
    found, grads = score(engine, model, batch)
    torch.testing.assert_close(found.sums, dense.sums, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.token_logp, dense.token_logp, rtol=0, atol=tolerance)
    assert found.lengths.tolist() == dense.lengths.tolist()
    assert grads.keys() == dense_grads.keys()
    for name, grad in dense_grads.items():
        scale = max(1.0, float(grad.abs().max()))
        torch.testing.assert_close(grads[name], grad, rtol=0, atol=tolerance * scale, msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("family", FAMILIES)
def test_families_with_windows_and_caps_equal_dense(score: Score, family: str, name: EngineName, backend: str) -> None:
    engine = get_engine(name, attention_backend=backend)
    if family == "gemma2":
        # a soft cap is for eager alone: transformers' sdpa refuses it. Eager in float64 gives NaN to padded queries
        assert_equal(score, make(family, attention="eager").float(), MIXED, engine, 1e-4)
    else:
        assert_equal(score, make(family), MIXED, engine)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PACKED)
def test_segments_longer_than_a_block_of_rows(score: Score, name: EngineName, backend: str) -> None:
    engine = get_engine(name, attention_backend=backend)
    assert_equal(score, make("llama", max_position_embeddings=512), LONG, engine)
    assert_equal(score, make("mistral", max_position_embeddings=512, sliding_window=100), LONG, engine)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("seed", range(6))
def test_random_packings(score: Score, name: EngineName, seed: int) -> None:
    """Prompts and completions of one token, prompts in several rows, equal sequences."""
    assert_equal(score, make("llama", seed=seed), random_batch(seed), get_engine(name))


@pytest.mark.parametrize("seed", range(2))
def test_completions_of_one_prompt_and_mismatched_examples(score: Score, seed: int) -> None:
    model, prompts = make("qwen3", seed=seed), [[7, 8, 9, 10, 11], [20, 21, 22, 23]]
    drawn = [(prompts[i % 2], [30 + i, 31, 40 + (i * seed) % 3]) for i in range(8)]
    assert_equal(score, model, batch_of(drawn), get_engine("shared"))
    mismatched = [(prompt, [*answer, 50]) for prompt, answer in drawn]
    batch = batch_of([*drawn, *mismatched], "examples", rows=8, desirable=torch.ones(8, dtype=torch.bool))
    assert_equal(score, model, batch, get_engine("shared"))
    ranked = batch_of(drawn[::2] + drawn[1::2], "ranked", rows=2, sizes=torch.tensor([4, 4]))
    assert_equal(score, model, ranked, get_engine("shared"))


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("tie", [True, False])
def test_tied_and_untied_heads_and_bias(score: Score, name: EngineName, tie: bool) -> None:
    assert_equal(score, make("llama", tie_word_embeddings=tie, attention_bias=True), MIXED, get_engine(name))


@pytest.mark.parametrize("name", PACKED)
def test_lora(score: Score, name: EngineName) -> None:
    model = add_lora(make("llama"), LoraSettings(r=2)).double()
    for parameter in (p for n, p in model.named_parameters() if "lora_B" in n):
        torch.nn.init.normal_(parameter)
    assert_equal(score, model, MIXED, get_engine(name))


@pytest.mark.parametrize("name", PACKED)
def test_activation_checkpointing(score: Score, name: EngineName) -> None:
    model = make("llama")
    plain, grads = score(get_engine(name), model, MIXED)
    enable_checkpointing(model)
    again, checkpointed = score(get_engine(name), model, MIXED)
    assert torch.equal(plain.sums, again.sums)
    assert all(torch.equal(grad, checkpointed[key]) for key, grad in grads.items())


@pytest.mark.parametrize("name", PACKED)
def test_bf16_autocast_is_as_near_to_float32_as_dense_is(tiny: Path, score: Score, name: EngineName) -> None:
    """The tolerance: 1.5 times the distance that autocast puts between `dense` and its own float32 numbers."""
    model = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        for weight in (p for n, p in model.named_parameters() if "q_proj" in n or "k_proj" in n):
            weight.mul_(15)
    true, true_grads = score(get_engine("dense"), model, LONG)
    errors = {}
    for one in ("dense", name):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, grads = score(get_engine(one), model, LONG)
        assert found.sums.dtype == torch.float32
        distance = sum(float((grads[key] - grad).norm() ** 2) for key, grad in true_grads.items())
        errors[one] = float((found.token_logp - true.token_logp).detach().norm()), distance**0.5
    assert errors[name][0] < 1.5 * errors["dense"][0]
    assert errors[name][1] < 1.5 * errors["dense"][1]


@pytest.mark.parametrize("name", PACKED)
def test_a_completion_never_sees_its_rival_nor_its_batch_mates(name: EngineName) -> None:
    model, engine = make("llama"), get_engine(name)
    whole = engine.logprobs(engine.forward(model, MIXED), MIXED)
    ids = MIXED.input_ids.clone()
    ids[4:] = torch.where(MIXED.completion_mask[4:], (ids[4:] + 17) % 200 + 6, ids[4:])  # every rejected answer
    changed = replace(MIXED, input_ids=ids)
    other = engine.logprobs(engine.forward(model, changed), changed)
    torch.testing.assert_close(other.sums[:4], whole.sums[:4], rtol=0, atol=1e-12)
    assert bool((other.sums[4:] - whole.sums[4:]).abs().min() > 1e-3)
    order = torch.tensor([6, 0, 3, 7, 5, 1, 2, 4])
    shuffled = replace(
        MIXED,
        input_ids=MIXED.input_ids[order],
        attention_mask=MIXED.attention_mask[order],
        completion_mask=MIXED.completion_mask[order],
    )
    again = engine.logprobs(engine.forward(model, shuffled), shuffled)
    torch.testing.assert_close(again.sums, whole.sums[order], rtol=0, atol=1e-12)


def test_texts_of_a_reward_model(score: Score) -> None:
    """`encode` gives the hidden state at the end of each text, with gradient."""
    model = make("llama")
    texts = batch_of([([], [9, 8, 7, 6, 20]), ([], [5, 5, 5]), ([], [9, 8, 7, 6, 30, 31]), ([], [5, 5, 6, 7])], "pairs")
    results = []
    for name in ("dense", "tiled", "shared", "packed"):
        model.zero_grad()
        last = get_engine(name).encode(model.model, texts).last  # type: ignore[arg-type]
        (last * torch.arange(4.0, dtype=torch.float64)[:, None]).square().sum().backward()
        results.append((last.detach(), model.model.layers[0].self_attn.k_proj.weight.grad.clone()))
    for found in results[1:]:
        torch.testing.assert_close(found, results[0], rtol=0, atol=1e-9)


def test_statistics_of_two_packed_passes(tmp_path: Path) -> None:
    policy, ref = make("llama"), make("llama", seed=1)

    def fn(own: torch.Tensor, other: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"gap": (own.log_softmax(-1) - other.log_softmax(-1)).gather(1, target[:, None])[:, 0]}

    found = []
    for name in ("dense", "shared"):
        engine = get_engine(name)  # type: ignore[arg-type]
        found.append(engine.compared(engine.forward(policy, MIXED), engine.forward(ref, MIXED), MIXED, fn))
    for one, other in zip(found[0][:2], found[1][:2], strict=True):
        torch.testing.assert_close(one.sums, other.sums, rtol=0, atol=1e-9)
    torch.testing.assert_close(found[0][2], found[1][2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_other_passes_of_the_model_stay_what_they_are(tmp_path: Path, attention: str) -> None:
    """Sampling and padded passes bit for bit; an exported config is that of the model."""
    folder = tiny_model(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention).eval()
    prompt = MIXED.input_ids[:3, :5]

    def passes() -> list[torch.Tensor]:
        asked = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
        with torch.no_grad():
            engine = get_engine("dense")
            sums = engine.logprobs(engine.forward(model, MIXED), MIXED).sums
            greedy = model.generate(**asked, max_new_tokens=9, do_sample=False, pad_token_id=2)
            return [sums, greedy, model(**asked).logits]

    before = passes()
    engine = get_engine("shared")
    engine.logprobs(engine.forward(model, MIXED), MIXED)
    assert model.config._attn_implementation.startswith("nashtune_")
    assert all(torch.equal(one, other) for one, other in zip(before, passes(), strict=True))
    model.save_pretrained(tmp_path / "saved")
    assert "nashtune" not in (tmp_path / "saved" / "config.json").read_text()
    saved, start = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("saved", "tiny"))
    assert saved == start


def test_another_attention_function_is_not_taken_for_a_packed_one(tmp_path: Path) -> None:
    """It takes the packed argument without a word, and every token would see every other one."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path), dtype=torch.float64)
    engine = get_engine("shared")
    engine.forward(model, MIXED)
    model.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError, match="0 of 2 layers ran packed attention"):
        engine.forward(model, MIXED)
