"""The sampler `vllm` draws from a stand-in for the server; tests/with_vllm runs it against vLLM itself."""

from __future__ import annotations

import pytest

from nashtune.errors import InputError
from nashtune.samplers.noise import stream_seed
from nashtune.samplers.policy import PolicySampler
from nashtune.samplers.vllm_probe import token_logp
from vllm_bench import PROMPTS


def test_log_probs_are_the_policys_own_and_every_field_is_filled(bench):
    one = bench()
    drawn = one.ready().sample(PROMPTS, 2, seed=3, round=1)
    assert [(c.prompt, c.k) for c in drawn] == [(i, k) for i in range(5) for k in range(2)]
    for completion in drawn:
        assert completion.version == "main@1"
        assert completion.kept_mass == ()
        assert completion.finish == ("stop" if completion.token_ids[-1] == 2 else "length")
        own = token_logp(one.policy, PROMPTS[completion.prompt], completion.token_ids, 1.0)
        assert completion.token_logp == pytest.approx(own, abs=1e-5)


def test_the_stand_in_draws_what_the_policy_sampler_draws(bench):
    """The stand-in uses the same noise, so equal completions show that seeds, prompts and EOS arrive as they should."""
    one = bench()
    live = PolicySampler(max_new_tokens=6)
    live.attach(one.surroundings)
    expected = [c.token_ids for c in live.sample(PROMPTS, 3, seed=5, round=2)]
    assert [c.token_ids for c in one.ready().sample(PROMPTS, 3, seed=5, round=2)] == expected


def test_every_request_says_all_that_shapes_the_distribution(bench):
    one = bench()
    one.ready(stop=["##"]).sample([[10, 20]], 2, seed=9, round=4, indices=[7])
    bodies = one.stubs[0].bodies("/v1/completions")[-2:]
    assert sorted(body["seed"] for body in bodies) == sorted(stream_seed(9, 4, 7, k) for k in range(2))
    for body in bodies:
        assert body["model"] == "tiny"
        assert body["prompt"] == [10, 20]
        assert body["return_token_ids"] and body["n"] == 1
        assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (1.0, 1.0, 0, 0.0)
        assert (body["repetition_penalty"], body["presence_penalty"], body["frequency_penalty"]) == (1.0, 0.0, 0.0)
        assert (body["ignore_eos"], body["stop_token_ids"], body["stop"]) == (True, [2], ["##"])


def test_prompts_are_sharded_by_number_and_the_result_is_that_of_one_server(bench):
    two = bench(servers=2)
    sampler = two.ready()
    before = [len(stub.log) for stub in two.stubs]
    drawn = sampler.sample(PROMPTS, 2, seed=3)
    sent = [
        [body["prompt"] for path, body in stub.log[start:] if path == "/v1/completions"]
        for stub, start in zip(two.stubs, before, strict=True)
    ]
    assert sorted(sent[0]) == sorted([PROMPTS[i] for i in (0, 2, 4)] * 2)
    assert sorted(sent[1]) == sorted([PROMPTS[i] for i in (1, 3)] * 2)
    alone = two.ready(servers=[two.stubs[0].url]).sample(PROMPTS, 2, seed=3)
    assert [c.token_ids for c in drawn] == [c.token_ids for c in alone]
    part = two.ready().sample(PROMPTS[1::2], 2, seed=3, indices=[1, 3])
    assert [c.token_ids for c in part] == [c.token_ids for c in drawn if c.prompt in (1, 3)]


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.0, 0.8), (1.5, 0.6)])
def test_processed_log_probs_are_under_the_distribution_drawn_from(bench, temperature, top_p):
    one = bench()
    one.stubs[0].logprobs_mode = "processed_logprobs"
    options = {"temperature": temperature, "top_p": top_p}
    drawn = one.ready(**options).sample(PROMPTS, 2, seed=1)
    live = PolicySampler(max_new_tokens=6, **options)
    live.attach(one.surroundings)
    for found, expected in zip(drawn, live.sample(PROMPTS, 2, seed=1), strict=True):
        assert found.token_ids == expected.token_ids
        assert found.token_logp == pytest.approx(expected.token_logp, abs=1e-5)
        assert found.kept_mass == pytest.approx(expected.kept_mass, abs=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0.7}, {"top_p": 0.5}])
def test_raw_log_probs_are_refused_where_they_are_those_of_another_distribution(bench, options):
    one = bench()
    with pytest.raises(InputError, match="--logprobs-mode processed_logprobs"):
        one.sampler(**options).attach(one.surroundings)


def test_the_kind_of_log_probs_a_server_says_it_gives_counts(bench):
    one = bench()
    one.stubs[0].says = {"dtype": "torch.bfloat16", "logprobs_mode": "raw_logprobs"}
    one.ready()
    with pytest.raises(InputError, match=r"gives raw_logprobs, not those at temperature=1, top_p=0\.99"):
        one.ready(top_p=0.99)
    one.stubs[0].says["logprobs_mode"] = "processed_logits"
    with pytest.raises(InputError, match="gives processed_logits"):
        one.ready()


def test_greedy_log_probs_are_zero(bench):
    one = bench()
    for completion in one.ready(temperature=0.0).sample(PROMPTS, 1, seed=1):
        assert completion.token_logp == (0.0,) * len(completion.token_ids)


def test_a_stop_string_ends_a_completion_and_stays_in_it(bench):
    one = bench()
    free = one.ready(temperature=0.0).sample(PROMPTS[:1], 1, seed=1)[0]
    stop = one.surroundings.tokenizer.decode(free.token_ids[2:3])
    cut = one.ready(temperature=0.0, stop=[stop]).sample(PROMPTS[:1], 1, seed=1)[0]
    assert cut.finish == "stop"
    assert stop in one.surroundings.tokenizer.decode(cut.token_ids)
    assert cut.token_ids == free.token_ids[: len(cut.token_ids)]


def test_prompts_must_fit(bench):
    one = bench()
    sampler = one.ready()
    with pytest.raises(InputError, match=r"prompt 4 has 507 tokens.*longest sequence of 512"):
        sampler.sample([[5], [5] * 507], 1, seed=0, indices=[3, 4])
    with pytest.raises(InputError, match="prompt 0 has no token"):
        sampler.sample([[]], 1, seed=0)
    with pytest.raises(ValueError, match="2 indices for 1 prompts"):
        sampler.sample([[5]], 1, seed=0, indices=[1, 2])
    with pytest.raises(InputError, match="mixture"):
        sampler.sample([[5]], 1, seed=0, reference_weight=0.1)
    assert sampler.sample([], 2, seed=0) == []
