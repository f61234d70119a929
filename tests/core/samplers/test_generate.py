"""What samplers of a live model share: batches, padding, top-p, stop strings, and agreement with the trainer."""

from __future__ import annotations

import math

import pytest
import torch

from live_models import Live, bigram_model, sharpened
from nashtune.data.collate import completion_batch
from nashtune.errors import InputError
from nashtune.logprobs import get_engine
from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig
from nashtune.samplers.batching import batches
from nashtune.samplers.kv_cache import RowCache
from nashtune.samplers.noise import draw, nucleus, stream_seed, uniforms
from nashtune.samplers.policy import PolicySampler
from nashtune.samplers.stops import Ends

PROMPTS = [[10, 20, 30], [11], [5, 6, 7, 8, 9, 40, 41], [60, 61], [90, 91, 92, 93]]


def sampler(live, **options):
    return live.attached(PolicySampler(**{"max_new_tokens": 8, **options}))


def rescored(policy, drawn, engine="dense"):
    """Log-prob of each drawn token as the trainer computes it."""
    batch = completion_batch([(PROMPTS[c.prompt], list(c.token_ids)) for c in drawn])
    with torch.no_grad():
        return policy.logprobs(batch, get_engine(engine)).token_logp


def recorded(drawn):
    return torch.tensor([value for c in drawn for value in c.token_logp])


# ---------------------------------------------------------------- batches


def test_batches_are_sorted_by_length_and_stay_within_the_budget():
    lengths = [3, 10, 1, 7, 7, 2]
    found = list(batches(lengths, new_tokens=5, budget=30))
    assert found == [[1, 3], [4, 0], [5, 2]]  # (10+5)*2 = 30; (7+5)*2 = 24, a third row would be 36
    assert sorted(place for batch in found for place in batch) == list(range(6))
    assert all(len(batch) * (max(lengths[place] for place in batch) + 5) <= 30 for batch in found)


def test_a_batch_has_at_least_one_row():
    assert list(batches([40, 50], new_tokens=5, budget=1)) == [[1], [0]]
    assert list(batches([], new_tokens=5, budget=1)) == []


def test_the_model_never_sees_more_tokens_than_the_budget(live, monkeypatch):
    seen = []
    spread = RowCache.spread

    def spy(self, rows, room):
        seen.append(len(rows) * (room + 1))
        spread(self, rows, room)

    monkeypatch.setattr(RowCache, "spread", spy)
    sampler(live, batch_tokens=45).sample(PROMPTS, 4, seed=0)
    assert len(seen) > 4 and max(seen) == 45


# ---------------------------------------------------------------- padding


def test_left_padding_changes_nothing(live):
    """One batch of five widths gives what each prompt gives alone, to float32."""
    together = sampler(live).sample(PROMPTS, 1, seed=4)
    for i, prompt in enumerate(PROMPTS):
        (alone,) = sampler(live).sample([prompt], 1, seed=4, indices=[i])
        assert alone.token_ids == together[i].token_ids
        assert alone.token_logp == pytest.approx(together[i].token_logp, abs=1e-6)


def test_the_order_of_prompts_does_not_matter(live):
    forward = sampler(live).sample(PROMPTS, 2, seed=4)
    order = [3, 1, 4, 0, 2]
    shuffled = sampler(live).sample([PROMPTS[i] for i in order], 2, seed=4, indices=order)
    assert {(order[c.prompt], c.k): c.token_ids for c in shuffled} == {(c.prompt, c.k): c.token_ids for c in forward}


# ---------------------------------------------------------------- the trainer's log-probs


@pytest.mark.parametrize("engine", ["tiled", "dense"])
@pytest.mark.parametrize("lora", [False, True])
def test_log_probs_equal_the_trainers_in_float32(untied, engine, lora):
    policy = HFPolicy(PolicyConfig(path=str(untied), lora=LoraSettings(r=2) if lora else None))
    policy.load()
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            weight.mul_(3.0).add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    drawn = sampler(Live(untied, policy.model)).sample(PROMPTS, 4, seed=2)
    assert torch.allclose(rescored(policy, drawn, engine), recorded(drawn), atol=1e-4, rtol=0)


def test_log_probs_in_bfloat16_agree_to_the_rounding_of_logits(untied):
    """A bfloat16 logit of size 8 to 16 is a multiple of 1/16; its neighbours in a cached pass differ by about one."""
    model = sharpened(untied, torch.bfloat16)
    live = Live(untied, model)
    drawn = sampler(live).sample(PROMPTS, 8, seed=2)
    difference = (rescored(live.policy, drawn) - recorded(drawn)).abs()
    assert difference.max() < 0.13
    assert difference.mean() < 0.02


def test_autocast_is_respected(untied):
    """Under bfloat16 autocast the float32 model is sampled as it is trained: in bfloat16."""
    live = Live(untied, sharpened(untied, torch.float32))
    plain = recorded(sampler(live).sample(PROMPTS, 4, seed=2))
    with torch.autocast("cpu", torch.bfloat16):
        drawn = sampler(live).sample(PROMPTS, 4, seed=2)
        trained = rescored(live.policy, drawn)
    assert (trained - recorded(drawn)).abs().max() < 0.13
    assert (rescored(live.policy, drawn) - recorded(drawn)).abs().max() > 1e-4  # not what float32 says
    assert recorded(drawn).shape != plain.shape or not torch.equal(recorded(drawn), plain)


def test_gradient_checkpointing_does_not_switch_off_the_cache(untied):
    plain = HFPolicy(PolicyConfig(path=str(untied)))
    saving = HFPolicy(PolicyConfig(path=str(untied), gradient_checkpointing=True))
    for policy in (plain, saving):
        policy.load()
    one, other = (sampler(Live(untied, policy.model)).sample(PROMPTS, 2, seed=2) for policy in (plain, saving))
    assert one == other
    assert saving.model.training


# ---------------------------------------------------------------- top-p


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p():
    logp = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]]).log()
    found, kept = nucleus(logp, 0.7)
    assert torch.allclose(kept, torch.tensor([0.8, 0.7, 0.75]))
    expected = [[0.625, 0.375, 0, 0], [0, 0, 3 / 7, 4 / 7], [1 / 3, 1 / 3, 1 / 3, 0]]
    assert torch.allclose(found.exp(), torch.tensor(expected), atol=1e-6)
    one, mass = nucleus(logp, 0.0)
    assert one.exp().tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    assert torch.allclose(mass, torch.tensor([0.5, 0.4, 0.25]))


def test_draws_with_top_p_follow_the_renormalised_nucleus():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    uniform = uniforms([stream_seed(0, 0, i, 0) for i in range(4000)], 1)[:, 0]
    drawn = draw(logits.expand(4000, 4), uniform, 1.0, top_p=0.7).token
    share = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(share, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.03)  # 4 standard errors
    assert share[2:].tolist() == [0, 0]


def test_top_p_records_the_kept_mass_so_that_the_full_log_prob_comes_back(live):
    drawn = sampler(live, top_p=0.8, temperature=1.3).sample(PROMPTS, 4, seed=2)
    kept = torch.tensor([value for c in drawn for value in c.kept_mass])
    assert len(kept) == len(recorded(drawn))
    assert bool((kept >= 0.8 - 1e-6).all()) and bool((kept <= 1).all()) and bool((kept < 1).any())
    for c in drawn:
        prompt = PROMPTS[c.prompt]
        with torch.no_grad():
            logits = live.model(torch.tensor([[*prompt, *c.token_ids]])).logits[0, len(prompt) - 1 : -1] / 1.3
        full = torch.log_softmax(logits, -1)[torch.arange(len(c.token_ids)), list(c.token_ids)]
        assert [a + math.log(m) for a, m in zip(c.token_logp, c.kept_mass, strict=True)] == pytest.approx(
            full.tolist(), abs=1e-5
        )


def test_without_top_p_and_when_greedy_no_kept_mass_is_recorded(live):
    assert all(c.kept_mass == () for c in sampler(live).sample(PROMPTS, 1, seed=2))
    assert all(c.kept_mass == () for c in sampler(live, top_p=0.5, temperature=0.0).sample(PROMPTS, 1, seed=2))


# ---------------------------------------------------------------- stop strings


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.fixture
def spelling(untied):
    """A model that spells 'Ab\n\ncé' over and over, with any number of newlines in the place of the two."""
    live = Live(untied, None)
    capital, b, newline, second, c, *accent = ids(live.tokenizer, "Ab\n\ncé")
    assert newline == second and len(accent) == 2  # each half of é decodes to no character of its own
    table = torch.full((262, 262), 1e-26)
    for here, there in zip([capital, b, c, *accent], [b, newline, *accent, capital], strict=True):
        table[here, there] = 1.0
    table[newline, [newline, c]] = 0.5
    live.policy.model = bigram_model(table.tolist())
    return live


@pytest.mark.parametrize("stop", ["\n\n", "c", "é", "b\n"])
def test_a_stop_string_ends_the_completion_after_the_token_that_completes_it(spelling, stop):
    drawn = sampler(spelling, stop=[stop, "never"], max_new_tokens=40).sample(
        [ids(spelling.tokenizer, "A")], 30, seed=0
    )
    stopped = [c for c in drawn if c.finish == "stop"]
    assert len(stopped) > 5
    assert len({len(c.token_ids) for c in drawn}) > 1 or stop == "b\n"
    for c in drawn:
        text = spelling.tokenizer.decode(c.token_ids)
        assert (stop in text) == (c.finish == "stop")
        if c.finish == "stop":
            assert text.endswith(stop)
            assert stop not in spelling.tokenizer.decode(c.token_ids[:-1])
        assert len(c.token_logp) == len(c.token_ids)


def test_stop_strings_do_not_change_what_is_drawn_before_them(live):
    free = sampler(live, max_new_tokens=24).sample(PROMPTS, 6, seed=1)
    texts = [live.tokenizer.decode(c.token_ids, skip_special_tokens=False) for c in free]
    stop = texts[0][4:6]
    cut = sampler(live, max_new_tokens=24, stop=[stop]).sample(PROMPTS, 6, seed=1)
    assert cut[0].finish == "stop" and len(cut[0].token_ids) < len(free[0].token_ids)
    for short, long in zip(cut, free, strict=True):
        assert short.token_ids == long.token_ids[: len(short.token_ids)]


def test_a_stop_string_in_the_prompt_or_across_its_end_does_not_count(spelling):
    (drawn,) = sampler(spelling, stop=["Ab"], max_new_tokens=4).sample([ids(spelling.tokenizer, "bA")], 1, seed=0)
    assert drawn.finish == "length"


def test_a_stop_string_far_back_is_not_met_again_and_a_long_one_is_met(live):
    tokenizer = live.tokenizer
    long = "a sentence of some length, with é and 漢字"
    tokens = ids(tokenizer, "Say: ") + ids(tokenizer, long)
    ends = Ends((2,), [long], tokenizer)
    assert [ends.ended(tokens[:end]) for end in range(1, len(tokens) + 1)] == [False] * (len(tokens) - 1) + [True]


def test_eos_before_a_stop_string_ends_first(live):
    drawn = sampler(live, max_new_tokens=24, temperature=3.0, stop=["</s>"]).sample(PROMPTS, 20, seed=2)
    plain = sampler(live, max_new_tokens=24, temperature=3.0).sample(PROMPTS, 20, seed=2)
    assert drawn == plain  # the text of EOS is a stop string: both end at the same token


def test_an_empty_stop_string_is_refused():
    with pytest.raises(InputError, match=r"sampler\.stop: an empty string"):
        PolicySampler(stop=["x", ""])


# ---------------------------------------------------------------- version, mixture, broken weights


def test_completions_carry_the_version_that_sync_told(live):
    attached = sampler(live)
    assert attached.sample(PROMPTS[:1], 1, seed=0)[0].version == ""
    attached.sync("main@2")
    assert attached.sample(PROMPTS[:1], 1, seed=0)[0].version == "main@2"


def test_the_policy_sampler_refuses_a_mixture(live):
    assert sampler(live).sample(PROMPTS, 1, seed=0, reference_weight=0.0) == sampler(live).sample(PROMPTS, 1, seed=0)
    with pytest.raises(InputError, match=r"has weight 0\.25; set spec\.sampler\.name to mixture"):
        sampler(live).sample(PROMPTS, 1, seed=0, reference_weight=0.25)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_diverged_are_named(untied, temperature):
    model = sharpened(untied)
    with torch.no_grad():
        model.lm_head.weight[7, 0] = torch.nan
    with pytest.raises(InputError, match=r"after prompt 4 are not finite.*diverged"):
        sampler(Live(untied, model), temperature=temperature).sample(PROMPTS[:1], 1, seed=0, indices=[4])
