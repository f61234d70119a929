"""The sampler `vllm` against vLLM's CPU build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces.sampler import Surroundings
from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig
from nashtune.samplers.noise import nucleus
from nashtune.samplers.vllm import VLLMSampler
from nashtune.samplers.vllm_client import Connection
from nashtune.samplers.vllm_probe import tempered_logp, token_logp
from nashtune.samplers.vllm_server import ServerEngine

pytestmark = pytest.mark.timeout(900)  # a server takes a minute to start, and its first request compiles
PROMPTS = [[10, 20, 30], [11], [15, 16, 17, 8, 9, 40, 41], [60, 61], [90, 91, 92, 93]]


@dataclass
class Run:
    policy: HFPolicy
    around: Surroundings

    def ready(self, version: str = "main@1", **options) -> VLLMSampler:
        sampler = VLLMSampler(**{"max_new_tokens": 12, **options})
        sampler.attach(self.around)
        sampler.sync(version)
        return sampler

    def train(self, seed: int = 1) -> None:
        """Moves every trained weight as far as it is large."""
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.policy.trainable_state_dict().values():
                weight.add_(0.5 * torch.randn(weight.shape, generator=draw) * weight.std().clamp_min(0.02))

    def assert_own(self, completions, tolerance: float = 1e-4) -> None:
        for one in completions:
            own = token_logp(self.policy, PROMPTS[one.prompt], one.token_ids, 1.0)
            assert one.token_logp == pytest.approx(own, abs=tolerance)


@pytest.fixture
def run(tmp_path: Path):
    def make(folder: Path, **settings) -> Run:
        policy = HFPolicy(PolicyConfig(path=str(folder), **settings))
        policy.load()
        return Run(policy, Surroundings(policy=policy, tokenizer=policy.tokenizer(), run_dir=str(tmp_path / "run")))

    return make


def test_log_probs_are_the_policys_own_and_follow_its_training(processed, untied, run):
    one = run(untied)
    sampler = one.ready(servers=[processed])
    first = sampler.sample(PROMPTS, 2, seed=3, round=1)
    assert [(c.prompt, c.k) for c in first] == [(i, k) for i in range(5) for k in range(2)]
    one.assert_own(first)
    assert sampler.sample(PROMPTS, 2, seed=3, round=1) == first  # seeds
    assert first[0].token_ids != first[1].token_ids
    one.train()
    sampler.sync("main@2")
    second = sampler.sample(PROMPTS, 2, seed=3, round=2)
    assert {c.version for c in second} == {"main@2"}
    one.assert_own(second)
    assert any(a.token_ids != b.token_ids for a, b in zip(first, second, strict=True))


def test_a_completion_has_its_own_noise_whatever_else_is_drawn(processed, untied, run):
    sampler = run(untied).ready(servers=[processed])
    whole = {(c.prompt, c.k): c.token_ids for c in sampler.sample(PROMPTS, 2, seed=7)}
    parts = {
        (2 * c.prompt + rank, c.k): c.token_ids
        for rank in (0, 1)
        for c in sampler.sample(PROMPTS[rank::2], 2, seed=7, indices=range(rank, 5, 2))
    }
    assert parts == whole


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.0, 0.8), (1.5, 0.6)])
def test_processed_log_probs_are_under_the_distribution_drawn_from(processed, untied, run, temperature, top_p):
    one = run(untied)
    sampler = one.ready(servers=[processed], temperature=temperature, top_p=top_p)
    for completion in sampler.sample(PROMPTS, 2, seed=1):
        logp = tempered_logp(one.policy, PROMPTS[completion.prompt], completion.token_ids, temperature)
        ids = torch.tensor(completion.token_ids)[:, None]
        if top_p == 1.0:
            assert completion.kept_mass == ()
        else:
            logp, kept = nucleus(logp, top_p)
            assert completion.kept_mass == pytest.approx(kept.tolist(), abs=1e-4)
        assert completion.token_logp == pytest.approx(logp.gather(1, ids)[:, 0].tolist(), abs=1e-4)


def test_greedy_takes_the_most_likely_token(processed, untied, run):
    one = run(untied)
    for completion in one.ready(servers=[processed], temperature=0.0).sample(PROMPTS, 1, seed=0):
        logp = tempered_logp(one.policy, PROMPTS[completion.prompt], completion.token_ids, 1.0)
        assert list(completion.token_ids) == logp.argmax(-1).tolist()
        assert completion.token_logp == (0.0,) * 12


def test_eos_and_stop_strings_end_a_completion_and_stay_in_it(processed, untied, run):
    one = run(untied)
    drawn = one.ready(servers=[processed], max_new_tokens=64).sample(PROMPTS, 12, seed=2)
    stopped = [c for c in drawn if c.finish == "stop"]
    assert stopped and len(stopped) < len(drawn)
    assert all(c.token_ids[-1] == 2 and c.token_ids.count(2) == 1 for c in stopped)
    assert all(len(c.token_ids) == 64 and 2 not in c.token_ids for c in drawn if c.finish == "length")
    one.assert_own(drawn)

    long = next(c for c in drawn if c.finish == "length")
    decode = one.around.tokenizer.decode
    letter = next(text for token in long.token_ids[5:] if len(text := decode([token])) == 1 and text.isalnum())
    cut = one.ready(servers=[processed], max_new_tokens=64, stop=[letter]).sample(PROMPTS, 12, seed=2)
    same = next(c for c in cut if (c.prompt, c.k) == (long.prompt, long.k))
    assert same.finish == "stop"
    assert same.token_ids == long.token_ids[: len(same.token_ids)]
    assert decode(same.token_ids).endswith(letter)
    assert decode(same.token_ids).count(letter) == 1


def test_a_lora_policy_is_pushed_merged(processed, untied, run):
    one = run(untied, lora=LoraSettings(r=2))
    sampler = one.ready(servers=[processed])
    one.train()
    sampler.sync("main@2")
    one.assert_own(sampler.sample(PROMPTS, 1, seed=0))


def test_a_server_left_from_another_attempt_is_given_the_live_weights(processed, untied, run):
    other = run(untied)
    other.train(seed=5)
    stranger = other.ready(servers=[processed])
    one = run(untied)
    sampler = one.ready(servers=[processed])
    one.assert_own(sampler.sample(PROMPTS, 1, seed=0))
    with pytest.raises(InputError, match="servers of its own"):
        stranger.sample(PROMPTS, 1, seed=0)


def test_a_prompt_beyond_the_servers_longest_sequence_is_refused(processed, untied, run):
    with pytest.raises(InputError, match="longest sequence of 256"):
        run(untied).ready(servers=[processed]).sample([[5] * 250], 1, seed=0)


def test_raw_log_probs_are_refused_at_another_temperature(plain, tied, run):
    one = run(tied)
    with pytest.raises(InputError, match=r"raw_logprobs.*--logprobs-mode processed_logprobs"):
        one.ready(servers=[plain], temperature=0.7)
    one.assert_own(one.ready(servers=[plain]).sample(PROMPTS, 1, seed=0))  # at 1 both are the same


def test_a_tied_head_that_stays_old_is_refused(plain, tied, run):
    one = run(tied)
    sampler = one.ready(servers=[plain])
    one.train()
    with pytest.raises(InputError, match="tied to its embedding"):
        sampler.sync("main@2")


def test_a_folder_that_the_server_does_not_see_is_an_error(plain, tmp_path):
    connection = Connection(plain, timeout=60, retries=0, backoff=1, advice="")
    with pytest.raises(InputError, match="/collective_rpc"):
        ServerEngine(connection, concurrent=1).push(tmp_path / "nowhere", "tag")


def test_an_engine_in_this_process_draws_and_syncs_alike(untied, run, monkeypatch):
    for name, value in {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",  # at exit it would log into a stream that pytest has closed
    }.items():
        monkeypatch.setenv(name, value)
    one = run(untied)
    options = {"enforce_eager": True, "max_model_len": 256}
    sampler = one.ready(engine="in_process", engine_options=options)
    one.assert_own(sampler.sample(PROMPTS, 2, seed=3))
    one.train()
    sampler.sync("main@2")
    one.assert_own(sampler.sample(PROMPTS, 2, seed=3))
