"""The sampler `vllm` with the engine in this process, on top of the stand-in."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nashtune.errors import InputError
from vllm_bench import PROMPTS
from vllm_stub import Stub


class FakeLLM:
    """`vllm.LLM` on top of the stand-in's model."""

    def __init__(self, model: str, **options: object) -> None:

        self.options = options
        self.stub = Stub(Path(model))
        self.stub.close()
        self.stub.logprobs_mode = str(options["logprobs_mode"])
        config = {"max_model_len": 512, "dtype": torch.float32, "logprobs_mode": self.stub.logprobs_mode}
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(**config))
        self.calls: list[str] = []
        FakeLLM.last = self

    def generate(self, prompts, parameters, use_tqdm):
        outputs = []
        for prompt, given in zip(prompts, parameters, strict=True):
            body = {"prompt": prompt["prompt_token_ids"], "return_token_ids": True, **vars(given)}
            one = self.stub._complete(body)
            logp = one["logprobs"]["token_logprobs"]
            choice = SimpleNamespace(
                token_ids=one["token_ids"],
                finish_reason=one["finish_reason"],
                logprobs=[{t: SimpleNamespace(logprob=v)} for t, v in zip(one["token_ids"], logp, strict=True)],
            )
            scores = [
                found and {int(t): SimpleNamespace(**v) for t, v in found.items()}
                for found in one.get("prompt_logprobs", [])
            ]
            outputs.append(SimpleNamespace(outputs=[choice], prompt_logprobs=scores))
        return outputs

    def collective_rpc(self, method, kwargs):
        self.calls.append(method)
        self.stub._reload({"method": method, "kwargs": kwargs})

    def reset_prefix_cache(self):
        self.calls.append("reset_prefix_cache")
        return True


def test_an_engine_in_this_process_draws_and_syncs_alike(bench, monkeypatch):
    one = bench()
    one.stubs[0].logprobs_mode = "processed_logprobs"
    options = {"temperature": 0.8, "top_p": 0.9}
    expected = one.ready(**options).sample(PROMPTS, 2, seed=1)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=FakeLLM, SamplingParams=SimpleNamespace))
    inside = one.ready(servers=None, engine="in_process", engine_options={"enforce_eager": True}, **options)
    assert inside.sample(PROMPTS, 2, seed=1) == expected
    assert FakeLLM.last.options == {"dtype": "float32", "logprobs_mode": "processed_logprobs", "enforce_eager": True}
    assert FakeLLM.last.calls == ["reload_weights", "reset_prefix_cache"]
    FakeLLM.last.stub.stale_head = True
    one.train()
    with pytest.raises(InputError, match="vLLM in this process: after loading the live weights"):
        inside.sync("main@2")


def test_vllm_that_is_not_installed_says_so(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="install vllm here"):
        bench().sampler(servers=None, engine="in_process").attach(bench().surroundings)
