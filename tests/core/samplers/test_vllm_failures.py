"""What the sampler `vllm` refuses, what it tries again, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nashtune.errors import InputError
from nashtune.samplers.vllm import VLLMSampler
from ranks import free_port
from vllm_bench import PROMPTS


def test_a_server_that_is_down_is_tried_a_few_times_and_named(bench, waits, tmp_path):
    one = bench()
    sampler = one.ready(retries=3, backoff=0.5)
    one.stubs[0].close()
    with pytest.raises(InputError) as caught:
        sampler.sample(PROMPTS, 1, seed=0)
    assert waits == [0.5, 1.0, 2.0]
    assert one.stubs[0].url in str(caught.value)
    assert "4 times" in str(caught.value)
    assert f"--run_dir {tmp_path / 'run'}" in str(caught.value)
    one.stubs.clear()


def test_a_passing_failure_is_waited_out(bench, waits):
    one = bench()
    sampler = one.ready(concurrent=1)
    expected = sampler.sample(PROMPTS[:1], 1, seed=0)
    one.stubs[0].replies["/v1/completions"] = [(503, {}, "starting"), (429, {"Retry-After": "7"}, "slow down")]
    assert sampler.sample(PROMPTS[:1], 1, seed=0) == expected
    assert waits == [1.0, 7.0]


def test_the_first_failure_ends_the_draw(bench, waits):
    one = bench()
    sampler = one.ready(concurrent=1)
    start = len(one.stubs[0].log)
    one.stubs[0].replies["/v1/completions"] = [(400, {}, "bad request")]
    with pytest.raises(InputError, match="bad request"):
        sampler.sample(PROMPTS, 8, seed=0)
    assert len(one.stubs[0].log) - start < 10  # of 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_ids": None}, "no token ids"),
        ({"logprobs": None}, "one log-prob for each token"),
        ({"logprobs": {"token_logprobs": [-1.0]}}, "one log-prob for each token"),
        ({"logprobs": {"token_logprobs": [5.0] * 6}}, "no log-probs"),
        ({"finish_reason": "abort"}, "'abort'"),
        ({"prompt_token_ids": [1, 10, 20, 30]}, "another prompt"),
        ({"token_ids": [7], "logprobs": {"token_logprobs": [-1.0]}, "finish_reason": "length"}, "--generation-config"),
    ],
)
def test_a_completion_that_is_not_whole_is_refused(bench, change, message):
    one = bench()
    sampler = one.ready()
    one.stubs[0].change = lambda choice: {**choice, **change}
    with pytest.raises(InputError, match=message):
        sampler.sample([[10, 20, 30]], 1, seed=0)


@pytest.mark.parametrize("text", ["<html>", '{"choices": []}', "[]", '{"error": "x"}'])
def test_garbage_is_refused(bench, text):
    one = bench()
    sampler = one.ready()
    one.stubs[0].replies["/v1/completions"] = [(200, {}, text)]
    with pytest.raises(InputError, match=r"vLLM server http://127.0.0.1:\d+: .*/v1/completions"):
        sampler.sample(PROMPTS[:1], 1, seed=0)


def test_a_server_that_is_not_vllm_is_refused(bench):
    one = bench()
    one.stubs[0].replies["/v1/models"] = [(200, {}, '{"models": []}')]
    with pytest.raises(InputError, match="is it a vLLM server"):
        one.sampler().attach(one.surroundings)


def test_calls_out_of_order_say_so(bench):
    one = bench()
    with pytest.raises(RuntimeError, match="attach"):
        one.sampler().sync("main@1")
    sampler = one.sampler()
    sampler.attach(one.surroundings)
    with pytest.raises(RuntimeError, match="sync"):
        sampler.sample(PROMPTS, 1, seed=0)
    with pytest.raises(TypeError, match="language model"):
        sampler.attach(replace(one.surroundings, policy=object()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name one at least"),
        ({"servers": ["localhost:8000"]}, "http://HOST:PORT"),
        ({"servers": ["http://a"], "engine": "in_process"}, "leave one of them out"),
        ({"servers": ["http://a"], "engine_options": {"seed": 1}}, "own command line"),
        ({"servers": ["http://a"], "top_p": 0.0}, "above 0"),
        ({"servers": ["http://a"], "temperature": 0.005}, "0 is greedy"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VLLMSampler(**options)


def test_a_server_that_is_not_there_is_found_before_the_policy_loads():
    url = f"http://127.0.0.1:{free_port()}"
    sampler = VLLMSampler(servers=[url], retries=0)
    with pytest.raises(InputError, match=rf"vLLM server {url}.*Start it, and give the command again"):
        sampler.prepare()
