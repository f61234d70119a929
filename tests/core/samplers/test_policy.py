"""The policy sampler: seeds, batch-mates, greedy search, log-probs under the sampling distribution, EOS."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from live_models import Live
from nashtune.errors import InputError
from nashtune.samplers.noise import stream_seed
from nashtune.samplers.policy import PolicySampler

PROMPTS = [[10, 20, 30], [11], [5, 6, 7, 8, 9, 40, 41], [60, 61], [90, 91, 92, 93]]


def sampler(live, **options):
    return live.attached(PolicySampler(**{"max_new_tokens": 8, "batch_tokens": 60, **options}))


def test_same_seed_same_completions_and_another_seed_or_round_others(live):
    first = sampler(live).sample(PROMPTS, 2, seed=3)
    assert first == sampler(live).sample(PROMPTS, 2, seed=3)
    assert first != sampler(live).sample(PROMPTS, 2, seed=4)
    assert first != sampler(live).sample(PROMPTS, 2, seed=3, round=1)
    assert [(c.prompt, c.k) for c in first] == [(i, k) for i in range(5) for k in range(2)]
    assert first[0].token_ids != first[1].token_ids


def test_the_global_random_state_neither_matters_nor_moves(live):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = sampler(live).sample(PROMPTS, 1, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert first == sampler(live).sample(PROMPTS, 1, seed=3)


@pytest.mark.parametrize("batch_tokens", [1, 45, 16384])
def test_a_completion_does_not_depend_on_its_batch_mates(live, batch_tokens):
    expected = sampler(live).sample(PROMPTS, 3, seed=1)
    found = sampler(live, batch_tokens=batch_tokens).sample(PROMPTS, 3, seed=1)
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.token_logp == pytest.approx(other.token_logp, abs=1e-5)


def test_more_samples_per_prompt_leave_the_first_ones_as_they_were(live):
    few = sampler(live).sample(PROMPTS, 1, seed=1)
    many = sampler(live).sample(PROMPTS, 3, seed=1)
    assert [c.token_ids for c in few] == [c.token_ids for c in many if c.k == 0]


def test_a_split_over_ranks_draws_what_one_rank_draws(live):
    whole = sampler(live).sample(PROMPTS, 2, seed=7)
    parts = [(rank, sampler(live).sample(PROMPTS[rank::2], 2, seed=7, indices=range(rank, 5, 2))) for rank in range(2)]
    merged = {(rank + 2 * c.prompt, c.k): c.token_ids for rank, part in parts for c in part}
    assert merged == {(c.prompt, c.k): c.token_ids for c in whole}


def test_greedy_equals_hugging_face_greedy(live):
    model = live.model
    for prompt, drawn in zip(PROMPTS, sampler(live, temperature=0.0).sample(PROMPTS, 1, seed=0), strict=True):
        alone = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_new_tokens=8
        )[0, len(prompt) :].tolist()
        assert list(drawn.token_ids) == alone
        assert drawn.token_logp == (0.0,) * len(alone)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_log_probs_equal_a_rescoring_at_that_temperature(live, temperature):
    model = live.model
    for drawn in sampler(live, temperature=temperature).sample(PROMPTS, 2, seed=5):
        prompt = PROMPTS[drawn.prompt]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *drawn.token_ids]])).logits[0, len(prompt) - 1 : -1]
        logp = torch.log_softmax(logits / temperature, -1)
        rescored = logp[torch.arange(len(drawn.token_ids)), list(drawn.token_ids)]
        assert drawn.token_logp == pytest.approx(rescored.tolist(), abs=1e-4)


def test_eos_ends_a_completion_also_where_padding_shares_its_id(live):
    tokenizer = live.tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    drawn = sampler(live, max_new_tokens=24, temperature=3.0).sample(PROMPTS, 40, seed=2)
    stopped = [c for c in drawn if c.finish == "stop"]
    assert stopped and any(c.finish == "length" for c in drawn)
    for completion in drawn:
        assert len(completion.token_ids) == len(completion.token_logp)
        assert completion.token_ids.count(2) == (completion.finish == "stop")
        assert (completion.token_ids[-1] == 2) == (completion.finish == "stop")
        assert completion.finish == "stop" or len(completion.token_ids) == 24


def test_every_eos_of_the_generation_settings_stops(live):
    model = live.model
    kept = model.generation_config
    try:
        model.generation_config = GenerationConfig(eos_token_id=list(range(262)))
        drawn = sampler(live).sample(PROMPTS, 2, seed=1)
    finally:
        model.generation_config = kept
    assert all(len(c.token_ids) == 1 and c.finish == "stop" for c in drawn)


def test_generation_settings_of_the_model_folder_do_not_shape_the_draw(live):
    """The trap: `generate` fills what is not given from the model's own settings, and the log-probs no longer fit."""
    model = live.model
    expected = sampler(live).sample(PROMPTS, 2, seed=1)
    kept = model.generation_config
    settings = GenerationConfig(repetition_penalty=5.0, top_k=2, min_new_tokens=6, suppress_tokens=[10], eos_token_id=2)
    try:
        model.generation_config = settings
        assert sampler(live).sample(PROMPTS, 2, seed=1) == expected
        assert model.generation_config is settings
    finally:
        model.generation_config = kept


def test_the_training_mode_comes_back_and_no_gradient_is_kept(live):
    model = live.model
    model.train()
    try:
        sampler(live).sample(PROMPTS[:1], 1, seed=0)
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())
    finally:
        model.eval()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # read by peft
def test_a_peft_model_samples_and_keeps_its_generation_settings(tiny):
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(tiny)
    expected = sampler(Live(tiny, base)).sample(PROMPTS, 1, seed=1)
    inner = base.generation_config
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    outer = adapted.generation_config
    found = sampler(Live(tiny, adapted)).sample(PROMPTS, 1, seed=1)
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]  # a fresh adapter changes nothing
    assert adapted.generation_config is outer
    assert base.generation_config is inner


def test_bad_requests_say_what_to_change(live):
    with pytest.raises(InputError, match="prompt 1 has no token"):
        sampler(live).sample([[5], []], 1, seed=0)
    with pytest.raises(InputError, match=r"prompt 0 has 510 tokens.*context of 512"):
        sampler(live).sample([[5] * 510], 1, seed=0)
    with pytest.raises(InputError, match="prompt 41 has no token"):
        sampler(live).sample([[]], 1, seed=0, indices=[41])
    with pytest.raises(RuntimeError, match="attach"):
        PolicySampler().sample([[5]], 1, seed=0)
    with pytest.raises(ValueError, match="2 indices for 1 prompts"):
        sampler(live).sample([[5]], 1, seed=0, indices=[1, 2])


def test_no_prompts_give_no_completions(live):
    assert sampler(live).sample([], 3, seed=0) == []


def test_seeds_are_stable_and_distinct():
    seeds = {stream_seed(s, r, p, k) for s in range(3) for r in range(3) for p in range(12) for k in range(12)}
    assert len(seeds) == 3 * 3 * 12 * 12
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream_seed(0, 0, 0, 0) == 1879184629313624024  # pinned: recorded runs hang on it
