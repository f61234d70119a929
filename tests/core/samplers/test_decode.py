"""The decode loop: what it computes, which models it decodes, and what decodes the others."""

from __future__ import annotations

import inspect
from contextlib import nullcontext

import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import (
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from live_models import Live, sharpened
from nashtune.errors import InputError
from nashtune.samplers import decode_support
from nashtune.samplers.mixture import MixtureSampler
from nashtune.samplers.policy import PolicySampler

PROMPTS = [[10, 20, 30], [11], [5, 6, 7, 8, 9, 40, 41], [60, 61], [90, 91, 92, 93]]
SHAPE = {
    "vocab_size": 262,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
}
SMALL = {"vocab_size": 262, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": None}
DECODED = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=8),
    "mistral": MistralConfig(**SHAPE, sliding_window=4),
    "gemma2": Gemma2Config(**SHAPE, head_dim=8, sliding_window=4),
    "gemma3": Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=4),
    "gpt2": GPT2Config(**SMALL, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "opt": OPTConfig(
        **{**SMALL, "pad_token_id": 1}, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=32, max_position_embeddings=64,
    ),
    "bloom": BloomConfig(**SMALL, hidden_size=32, n_layer=2, n_head=4),
}  # fmt: skip
OTHERS = {
    "mamba": MambaConfig(**SMALL, hidden_size=32, num_hidden_layers=2, state_size=4),
    "lfm2": Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
}


def model_of(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    if model.config._attn_implementation != "eager":  # which takes its softmax in float32
        model.double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(8.0 if "embed" not in name and "wte" not in name else 2.0)
    return model


def closed_form(models, prompt, tokens):
    """Log-probs under the even mixture of the models, from whole passes without a cache."""
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        logits = [model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double() for model in models]
    return log_softmax(sum(logits) / len(models), -1)[torch.arange(len(tokens)), list(tokens)].tolist()


def sampler(live, **options):
    return live.attached(PolicySampler(**{"max_new_tokens": 8, **options}))


class Calls:
    """Shapes of the ids that a model is called with."""

    def __init__(self, model):
        self.shapes = []
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module, positional, named):
        self.shapes.append(tuple(named["input_ids"].shape))


# ---------------------------------------------------------------- what is computed


def test_a_prompt_is_computed_once_for_all_its_completions_and_a_row_is_gone_when_it_ends(untied):
    live = Live(untied, sharpened(untied))
    attached = sampler(live, max_new_tokens=24, temperature=3.0)
    attached.sample([[1, 2, 3, 4, 5, 6, 7, 8]], 1, seed=0)  # the first call looks at the model too
    calls = Calls(live.model)
    drawn = attached.sample([*PROMPTS, PROMPTS[0]], 20, seed=2)
    lengths = [len(c.token_ids) for c in drawn]
    assert len(set(lengths)) > 5
    assert calls.shapes[0] == (5, 7)  # equal prompts once, too
    assert calls.shapes[1:] == [(sum(length > at for length in lengths), 1) for at in range(1, max(lengths))]


def test_nothing_is_computed_behind_the_last_token(untied):
    live = Live(untied, sharpened(untied))
    attached = sampler(live, max_new_tokens=1)
    attached.sample(PROMPTS, 3, seed=0)
    calls = Calls(live.model)
    attached.sample(PROMPTS, 3, seed=0)
    assert calls.shapes == [(5, 7)]


def test_more_new_tokens_leave_the_first_ones_as_they_were(untied):
    live = Live(untied, sharpened(untied))
    short, long = (sampler(live, max_new_tokens=most).sample(PROMPTS, 3, seed=1) for most in (4, 12))
    assert [c.token_ids for c in short] == [c.token_ids[:4] for c in long]


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_weights_are_sampled_under_autocast_like_others_and_stay_frozen(untied, frozen):
    trained = sharpened(untied, torch.float32)
    model = sharpened(untied, torch.float32).requires_grad_(not frozen)
    with torch.autocast("cpu", torch.bfloat16):
        expected = sampler(Live(untied, trained)).sample(PROMPTS, 3, seed=1)
        assert sampler(Live(untied, model)).sample(PROMPTS, 3, seed=1) == expected
    assert all(weight.requires_grad != frozen for weight in model.parameters())


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("name", DECODED)
def test_models_are_decoded_as_their_own_passes_say(untied, name, capsys):
    model = model_of(DECODED[name])
    live = Live(untied, model)
    drawn = sampler(live, max_new_tokens=12, temperature=1.0).sample(PROMPTS, 6, seed=3)
    assert decode_support._known[model] == ""
    assert len({c.token_ids for c in drawn}) > 20
    for c in drawn:
        # some models take sines of positions in float32 whatever the weights are
        assert c.token_logp == pytest.approx(closed_form((model,), PROMPTS[c.prompt], c.token_ids), abs=1e-4)


@pytest.mark.parametrize("name", DECODED)
def test_the_loop_draws_what_generate_would(untied, name, monkeypatch):
    model = model_of(DECODED[name])
    live = Live(untied, model)
    options = {"max_new_tokens": 16, "temperature": 1.5, "top_p": 0.95, "stop": ["a", "0"]}
    found = sampler(live, **options).sample(PROMPTS, 6, seed=3)
    monkeypatch.setitem(decode_support._known, model, "for the test")
    expected = sampler(live, **options).sample(PROMPTS, 6, seed=3)
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]
    assert {c.finish for c in found} == {"stop", "length"}
    for one, other in zip(found, expected, strict=True):
        assert one.finish == other.finish
        assert one.token_logp == pytest.approx(other.token_logp, abs=1e-4)
        assert one.kept_mass == pytest.approx(other.kept_mass, abs=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_are_decoded_by_generate_and_one_line_says_so(untied, name, caplog):
    live = Live(untied, model_of(OTHERS[name]))
    with caplog.at_level("INFO"):
        together = sampler(live).sample(PROMPTS[:1], 3, seed=3)
        again = sampler(live).sample(PROMPTS[:1], 3, seed=3)
    assert together == again and len({c.token_ids for c in together}) == 3
    notes = [record.getMessage() for record in caplog.records if "sampler" in record.getMessage()]
    assert len(notes) == 1 and "decoded by transformers' `generate`" in notes[0]
    for c in together:
        assert c.token_logp == pytest.approx(closed_form((live.model,), PROMPTS[0], c.token_ids), abs=1e-4)


def test_a_model_whose_cache_answers_otherwise_is_left_to_generate(untied, monkeypatch):
    model = sharpened(untied)
    forward = model.forward

    def shifted(*positional, **named):
        out = forward(*positional, **named)
        if named.get("past_key_values") is not None:
            out.logits = out.logits + torch.linspace(0, 0.1, out.logits.shape[-1])
        return out

    shifted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", shifted)
    with torch.no_grad():
        assert "are not those of a pass without" in decode_support.obstacle(model, [5, 6, 7])


def test_mixtures_on_models_that_generate_decodes(untied):
    policy, start = (model_of(OTHERS["lfm2"]) for _ in range(2))
    with torch.no_grad():
        for weight in start.parameters():
            weight.mul_(0.9)
    live = Live(untied, policy)
    mixing = live.attached(MixtureSampler(max_new_tokens=6), start_logits=(start, nullcontext))
    drawn = mixing.sample(PROMPTS[:1], 3, seed=5, reference_weight=0.5)
    for c in drawn:
        assert c.token_logp == pytest.approx(closed_form((policy, start), PROMPTS[0], c.token_ids), abs=1e-4)
        assert c.token_logp != pytest.approx(closed_form((policy,), PROMPTS[0], c.token_ids), abs=1e-2)
    stateful = Live(untied, model_of(OTHERS["mamba"]))
    bare = stateful.attached(MixtureSampler(max_new_tokens=6), start_logits=(stateful.model, nullcontext))
    with pytest.raises(InputError, match="needs a key-value cache"):
        bare.sample(PROMPTS[:1], 1, seed=5, reference_weight=0.5)
