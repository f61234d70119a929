"""Heads that scale, cap or bias their logits, and heads that are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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


def test_lora_on_the_head_names_the_other_engine(tmp_path: Path) -> None:
    tiny = tiny_model(tmp_path, tie=False)
    model = add_lora(
        AutoModelForCausalLM.from_pretrained(tiny), LoraSettings(r=2, target_modules=["q_proj", "lm_head"])
    )
    with pytest.raises(InputError, match=r"LoRA on the LM head.*engine `dense`"):
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
