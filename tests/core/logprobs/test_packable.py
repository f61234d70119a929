"""Which models cannot be packed, and what `auto` makes of that."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nashtune.errors import InputError
from nashtune.logprobs import get_engine, packed
from nashtune.logprobs.packable import not_packable, trunk_of
from packed_batches import pairs
from packed_models import SIZE, make

BATCH = pairs([(12, 9, 4), (5, 1, 12), (7, 6, 3)])
STRANGERS = {
    "mamba": {"state_size": 4},
    "qwen3_next": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    "bloom": {"n_head": 4, "n_layer": 2},
    "cohere2": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "olmo2": {},
    "phi3": {"sliding_window": None},
    "granite": {},
    "smollm3": {"no_rope_layers": [1, 0]},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
}
CANNOT = {
    "mamba": "linear_attention",
    "qwen3_next": "linear_attention",
    "gpt_oss": "differs from its padded one",  # attention sinks
    "bloom": "does not take its attention from transformers' interface",
}


def build(family: str, **settings: Any) -> Any:
    size = {name: value for name, value in SIZE.items() if name != "head_dim"}
    config = AutoConfig.for_model(family, **(size | STRANGERS[family] | settings))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_config(config).float().eval()


@pytest.mark.parametrize("family", STRANGERS)
def test_a_family_that_is_not_known_is_probed_and_equals_dense_or_says_why(family: str) -> None:
    model = build(family)
    reason = not_packable(trunk_of(model))
    if family in CANNOT:
        assert reason is not None and CANNOT[family] in reason
        for name in ("shared", "packed"):
            with pytest.raises(InputError, match=f"engine: {name} cannot run this model: .*use engine auto or tiled"):
                get_engine(name).attach(model)  # type: ignore[arg-type]
        assert model.config._attn_implementation in ("sdpa", "eager")
    else:
        assert reason is None
        sums = [
            engine.logprobs(engine.forward(model, BATCH), BATCH).sums
            for engine in (get_engine("dense"), get_engine("shared"))
        ]
        torch.testing.assert_close(*sums, rtol=0, atol=1e-3)


def test_a_known_family_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    monkeypatch.setattr(model.model, "forward", lambda **_: pytest.fail("the model ran"))
    assert not_packable(model.model) is None


def test_attention_that_does_not_go_through_sdpa_or_eager_is_named() -> None:
    model = make("llama")
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(InputError, match=r"policy\.attention is flash_attention_2"):
        get_engine("shared").attach(model)


def test_a_window_that_a_layer_keeps_to_itself_is_found() -> None:
    """The probe is shorter than the window, so its numbers alone would not show it."""
    model = build("cohere2", sliding_window=4096)
    model.model.layers[0].self_attn.sliding_window = None
    assert "1 layers of Cohere2Model have a sliding window, 0 tell it" in str(not_packable(model.model))


def test_auto_packs_where_it_can() -> None:
    engine, model = get_engine("auto"), make("llama")
    assert engine.pads
    engine.attach(model)
    assert not engine.pads
    layout = engine.plan(BATCH)
    assert layout.packed is not None and layout.positions < layout.tokens
    batch = replace(BATCH, layout=layout)
    dense = get_engine("dense")
    torch.testing.assert_close(
        engine.logprobs(engine.forward(model, batch), batch).sums,
        dense.logprobs(dense.forward(model, BATCH), BATCH).sums,
        rtol=0,
        atol=1e-9,
    )


def test_auto_says_once_why_it_pads(notes: list[str]) -> None:
    engine, model = get_engine("auto"), build("bloom")
    engine.attach(model)
    engine.attach(model)
    assert engine.pads and engine.plan(BATCH).packed is None
    engine.logprobs(engine.forward(model, BATCH), BATCH)
    assert len(notes) == 1
    assert notes[0].startswith("engine auto runs padded batches (tiled): BloomModel does not take")


def test_a_reference_that_cannot_be_packed_runs_padded_beside_a_policy_that_can(notes: list[str]) -> None:
    engine, policy, ref = get_engine("auto"), make("llama").float(), build("bloom")
    engine.attach(policy)
    batch = replace(BATCH, layout=engine.plan(BATCH))
    own, other = engine.forward(policy, batch), engine.forward(ref, batch)
    found = engine.compared(own, other, batch, lambda a, b, target: {"zero": 0 * a[:, 0]})
    dense = get_engine("dense")
    for logprobs, model in zip(found[:2], (policy, ref), strict=True):
        expected = dense.logprobs(dense.forward(model, BATCH), BATCH).sums
        torch.testing.assert_close(logprobs.sums, expected, rtol=0, atol=1e-3)
    assert notes[0] == "engine auto packs batches and shares prompts (shared): llama is a tested family"
    assert len(notes) == 2 and "BloomModel" in notes[1]


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(packed, "note", said.append)
    return said
