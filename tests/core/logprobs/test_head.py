"""Heads that scale, cap or bias their logits, and heads that are refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from nashtune.errors import InputError
from nashtune.logprobs import get_engine
from nashtune.logprobs.head import logit_transform
from nashtune.models.config import LoraSettings
from nashtune.models.loading import add_lora
from nashtune.testing import tiny_model, token_batch

Score = Callable[..., Any]
SIZE = {
    "vocab_size": 262,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
BATCH = token_batch([(3, 9), (5, 4), (2, 12), (7, 1)])


def build(model_type: str, **settings: Any) -> Any:
    torch.manual_seed(3)
    config = AutoConfig.for_model(model_type, **{**SIZE, **settings})
    model = AutoModelForCausalLM.from_config(config).double()
    with torch.no_grad():  # logits large enough that a cap bends them
        model.get_output_embeddings().weight.mul_(8)
    return model


@pytest.mark.parametrize("frozen_head", [False, True])
@pytest.mark.parametrize(
    ("model_type", "settings", "expected"),
    [
        ("gemma2", {"final_logit_softcapping": 1.5, "head_dim": 8, "attn_implementation": "eager"}, (1.0, 1.5)),
        ("gemma3_text", {"final_logit_softcapping": None, "head_dim": 8}, (1.0, None)),
        ("granite", {"logits_scaling": 4.0}, (0.25, None)),
        ("cohere", {"logit_scale": 0.0625}, (0.0625, None)),
        ("phi", {}, (1.0, None)),  # a head with a bias
    ],
)
def test_tiled_equals_dense(
    score: Score, model_type: str, settings: dict[str, Any], expected: tuple[float, float | None], frozen_head: bool
) -> None:
    model = build(model_type, **settings)
    if model_type == "phi":
        assert model.lm_head.bias is not None
        torch.nn.init.normal_(model.lm_head.bias)
    for parameter in model.get_output_embeddings().parameters():
        parameter.requires_grad_(not frozen_head)
    assert logit_transform(model.config) == expected
    dense, dense_grads = score(get_engine("dense"), model, BATCH)
    tiled, tiled_grads = score(get_engine("tiled", tile_mib=0.001, tokens=7), model, BATCH)
    torch.testing.assert_close(tiled.sums, dense.sums, rtol=0, atol=1e-10)
    assert tiled_grads.keys() == dense_grads.keys()
    for name, grad in dense_grads.items():
        torch.testing.assert_close(tiled_grads[name], grad, rtol=1e-9, atol=1e-10, msg=name)


def test_a_cap_bends_the_logits_of_the_test_above() -> None:
    """Otherwise it would prove nothing."""
    capped = build("gemma2", final_logit_softcapping=1.5, head_dim=8, attn_implementation="eager")
    free = copy.deepcopy(capped)
    free.config.final_logit_softcapping = None
    ids = BATCH.input_ids
    difference = capped(input_ids=ids, use_cache=False).logits - free(input_ids=ids, use_cache=False).logits
    assert float(difference.detach().abs().max()) > 0.3


def test_statistics_see_capped_logits() -> None:
    model = build("gemma2", final_logit_softcapping=1.5, head_dim=8, attn_implementation="eager")
    engine = get_engine("tiled")
    features = engine.forward(model, BATCH)
    seen: list[float] = []

    def fn(policy: torch.Tensor, ref: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(float(policy.abs().max()))
        return {"zero": policy.sum(-1) - ref.sum(-1)}

    sums = engine.compared(features, features, BATCH, fn)[2]["zero"]
    assert max(seen) <= 1.5
    assert sums.tolist() == [0.0] * 4


def test_a_cap_that_the_model_does_not_apply_is_found_by_the_check(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64)
    model.config.final_logit_softcapping = 0.2  # Llama knows no such thing
    with pytest.raises(InputError, match=r"LM head alone .*soft cap 0.2.*engine `dense`"):
        get_engine("tiled").forward(model, BATCH)


def test_an_unknown_scale_is_refused(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.config.output_multiplier = 0.5
    with pytest.raises(InputError, match=r"output_multiplier=0.5 .*engine `dense`"):
        get_engine("tiled").forward(model, BATCH)


def with_head_adapter(model: Any, **options: Any) -> Any:
    """LoRA on the head and on a layer below it, with updates that are not zero."""
    config = LoraConfig(r=3, target_modules=["q_proj", "lm_head"], lora_alpha=5, **options)
    with warnings.catch_warnings():  # merging and saving would be wrong with a tied head, which is not done here
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
        model = get_peft_model(model, config)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2, generator=draw)
    return model


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("options", [{}, {"lora_bias": True}, {"use_rslora": True}])
@pytest.mark.parametrize("budget", [{"tile_mib": 0.001, "tokens": 7, "kept_mib": 0}, {"tile_mib": 0.01}, {}])
@pytest.mark.filterwarnings("ignore:.lora_bias=True")  # only merging would not be possible
def test_lora_on_the_head(
    tmp_path: Path, score: Score, tie: bool, options: dict[str, Any], budget: dict[str, Any]
) -> None:
    """Gradients of A and B, of the tied embedding where it is trained, and of the layer below."""
    folder = tiny_model(tmp_path, tie=tie)
    model = with_head_adapter(AutoModelForCausalLM.from_pretrained(folder), **options).double()
    dense, dense_grads = score(get_engine("dense"), model, BATCH)
    with model.disable_adapter(), torch.no_grad():
        off = get_engine("tiled").forward(model, BATCH)
        base = get_engine("tiled").logprobs(off, BATCH).sums
        torch.testing.assert_close(
            base, get_engine("dense").logprobs(get_engine("dense").forward(model, BATCH), BATCH).sums
        )
    assert float((dense.sums - base).abs().max().detach()) > 0.1
    tiled, tiled_grads = score(get_engine("tiled", **budget), model, BATCH)
    torch.testing.assert_close(tiled.sums, dense.sums, rtol=0, atol=1e-10)
    assert tiled_grads.keys() == dense_grads.keys()
    assert {"lora_A", "lora_B"} <= {part for name in dense_grads if "lm_head" in name for part in name.split(".")}
    for name, grad in dense_grads.items():
        torch.testing.assert_close(tiled_grads[name], grad, rtol=0, atol=1e-10, msg=name)


def test_lora_on_a_head_that_is_trained_too(tmp_path: Path, score: Score) -> None:
    model = with_head_adapter(AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path, tie=False))).double()
    model.base_model.model.lm_head.base_layer.weight.requires_grad_()
    _, dense_grads = score(get_engine("dense"), model, BATCH)
    _, tiled_grads = score(get_engine("tiled", tile_mib=0.001, tokens=7), model, BATCH)
    assert any(name.endswith("lm_head.base_layer.weight") for name in dense_grads)
    assert tiled_grads.keys() == dense_grads.keys()
    for name, grad in dense_grads.items():
        torch.testing.assert_close(tiled_grads[name], grad, rtol=0, atol=1e-10, msg=name)


def test_a_second_adapter_on_the_head_and_a_merged_one(tmp_path: Path, score: Score) -> None:
    model = with_head_adapter(AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path, tie=False)))
    model.add_adapter("second", LoraConfig(r=2, target_modules=["lm_head"]))
    torch.nn.init.normal_(model.base_model.model.lm_head.lora_B["second"].weight, std=0.1)
    model.double().base_model.set_adapter(["default", "second"])
    tiled, dense = get_engine("tiled", tile_mib=0.001, tokens=7), get_engine("dense")
    both, _ = score(tiled, model, BATCH)
    torch.testing.assert_close(both.sums, score(dense, model, BATCH)[0].sums, rtol=0, atol=1e-10)
    model.merge_adapter()
    merged = tiled.logprobs(tiled.forward(model, BATCH), BATCH).sums
    torch.testing.assert_close(merged, both.sums.detach(), rtol=0, atol=1e-9)


def test_dropout_of_the_heads_adapter_is_drawn_once_for_value_and_gradient(tmp_path: Path) -> None:
    model = with_head_adapter(
        AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path, tie=False)), lora_dropout=0.5
    ).double()
    engine = get_engine("tiled", tile_mib=0.001, tokens=7, kept_mib=0)
    up = model.base_model.model.lm_head.lora_B["default"].weight

    def total(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return engine.logprobs(engine.forward(model, BATCH), BATCH).sums.sum()

    assert float(total(0).detach()) != float(total(1).detach())
    (grad,) = torch.autograd.grad(total(0), up)
    step = torch.zeros_like(up)
    step[5, 1] = 1e-6
    with torch.no_grad():
        up.add_(step)
        above = float(total(0))
        up.sub_(2 * step)
        below = float(total(0))
    assert float(grad[5, 1]) == pytest.approx((above - below) / 2e-6, abs=1e-5)


def test_dora_on_the_head_names_the_other_engine(tmp_path: Path) -> None:
    model = with_head_adapter(AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path, tie=False)), use_dora=True)
    with pytest.raises(InputError, match=r"LoRA on the LM head as DoraLinearVariant.*engine `dense`"):
        get_engine("tiled").forward(model, BATCH)


def test_lora_in_the_backbone(tiny: Path, score: Score) -> None:
    model = add_lora(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64), LoraSettings(r=2)).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    dense, dense_grads = score(get_engine("dense"), model, BATCH)
    tiled, tiled_grads = score(get_engine("tiled", tile_mib=0.001, tokens=7), model, BATCH)
    torch.testing.assert_close(tiled.sums, dense.sums, rtol=0, atol=1e-10)
    assert dense_grads and all("lora" in name for name in dense_grads)
    for name, grad in dense_grads.items():
        torch.testing.assert_close(tiled_grads[name], grad, rtol=0, atol=1e-10, msg=name)


def test_the_check_leaves_the_model_as_it_was(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny).train()
    model.model.layers[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    get_engine("tiled").forward(model, BATCH)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.equal(torch.get_rng_state(), state)
