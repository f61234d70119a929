"""The sampler `vllm` against a stand-in for the server; tests/with_vllm runs it against vLLM itself."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from nashtune.errors import InputError
from nashtune.interfaces.sampler import Surroundings
from nashtune.samplers import vllm_client
from nashtune.samplers.noise import stream_seed
from nashtune.samplers.policy import PolicySampler
from nashtune.samplers.vllm import VLLMSampler
from nashtune.samplers.vllm_fleet import on_rank_0
from nashtune.samplers.vllm_probe import probe_ids, token_logp
from nashtune.testing import tiny_model
from vllm_stub import Stub

PROMPTS = [[10, 20, 30], [11], [15, 16, 17, 8, 9, 40, 41], [60, 61], [90, 91, 92, 93]]
PUSH = ["/pause", "/collective_rpc", "/update_weight_version", "/resume", "/reset_prefix_cache"]


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("vllm") / "untied", tie=False)


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited between attempts, without waiting."""
    seconds: list[float] = []
    monkeypatch.setattr(vllm_client, "pause", lambda wait, cancelled: seconds.append(wait))
    return seconds


@dataclass
class Bench:
    policy: object
    surroundings: Surroundings
    stubs: list[Stub]

    def sampler(self, **options) -> VLLMSampler:
        options = {"max_new_tokens": 6, "servers": [stub.url for stub in self.stubs], "retries": 2, **options}
        return VLLMSampler(**options)

    def ready(self, **options) -> VLLMSampler:
        sampler = self.sampler(**options)
        sampler.attach(self.surroundings)
        sampler.sync("main@1")
        return sampler

    def train(self, scale: float = 0.5) -> None:
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in self.policy.trainable_state_dict().values():
                weight.add_(scale * torch.randn(weight.shape, generator=draw) * weight.std())


@pytest.fixture
def bench(untied, load, tmp_path):
    made: list[Stub] = []

    def make(servers: int = 1, folder=untied, **settings) -> Bench:
        policy = load(folder, **settings)
        made.extend(Stub(folder) for _ in range(servers))
        around = Surroundings(policy=policy, tokenizer=policy.tokenizer(), run_dir=str(tmp_path / "run"))
        return Bench(policy, around, made[-servers:])

    yield make
    for stub in made:
        stub.close()


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


def test_a_sync_follows_the_protocol_on_every_server_and_keeps_one_folder(bench, tmp_path):
    two = bench(servers=2)
    sampler = two.sampler()
    sampler.attach(two.surroundings)
    assert not any(path in PUSH for stub in two.stubs for path in stub.paths())  # both run these weights already
    for version in ("main@1", "main@2"):
        two.train()
        start = [len(stub.log) for stub in two.stubs]
        sampler.sync(version)
        for stub, begin in zip(two.stubs, start, strict=True):
            assert stub.paths()[begin:] == [*PUSH, "/v1/completions"]
            assert stub.log[-1][1]["prompt_logprobs"] == 0
        (folder,) = (tmp_path / "run" / "vllm").iterdir()
        assert folder.name.startswith(f"{version}-")
        assert {stub.version for stub in two.stubs} == {folder.name}
        assert two.stubs[0].bodies("/collective_rpc")[-1]["kwargs"] == {"weights_path": str(folder)}
    drawn = sampler.sample(PROMPTS, 1, seed=0)
    assert {c.version for c in drawn} == {"main@2"}
    for completion in drawn:
        own = token_logp(two.policy, PROMPTS[completion.prompt], completion.token_ids, 1.0)
        assert completion.token_logp == pytest.approx(own, abs=1e-5)


def test_a_lora_policy_is_pushed_merged(bench):
    from nashtune.models.policy import LoraSettings

    one = bench(lora=LoraSettings(r=2))
    sampler = one.sampler()
    sampler.attach(one.surroundings)
    with torch.no_grad():
        for weight in one.policy.trainable_state_dict().values():
            torch.nn.init.normal_(weight, std=0.5)
    sampler.sync("main@1")
    drawn = sampler.sample(PROMPTS[:1], 1, seed=0)[0]
    assert drawn.token_logp == pytest.approx(token_logp(one.policy, PROMPTS[0], drawn.token_ids, 1.0), abs=1e-5)


def test_a_server_with_other_weights_is_given_the_live_ones_when_attached(bench):
    two = bench(servers=2)
    two.train()
    sampler = two.sampler()
    sampler.attach(two.surroundings)
    assert all("/collective_rpc" in stub.paths() for stub in two.stubs)


def test_a_stale_head_behind_a_200_is_refused_and_the_weights_are_kept(bench, tiny, tmp_path):
    one = bench(folder=tiny)  # tied embeddings
    one.stubs[0].stale_head = True
    sampler = one.sampler()
    sampler.attach(one.surroundings)
    one.train()
    with pytest.raises(InputError) as caught:
        sampler.sync("main@1")
    message = str(caught.value)
    assert one.stubs[0].url in message
    assert "tied to its embedding" in message and "CPU build" in message
    assert f"nashtune fit --ckpt_path last --run_dir {tmp_path / 'run'}" in message
    (folder,) = (tmp_path / "run" / "vllm").iterdir()
    assert (folder / "model.safetensors").is_file()
    largest = float(message.split("by up to ")[1].split()[0])
    ids = probe_ids(one.surroundings.tokenizer)
    stale = one.stubs[0]._complete({"prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0})
    scores = [found[str(t)]["logprob"] for found, t in zip(stale["prompt_logprobs"][1:], ids[1:], strict=True)]
    own = token_logp(one.policy, ids[:1], ids[1:], 1.0)
    assert largest == pytest.approx(max(abs(a - b) for a, b in zip(scores, own, strict=True)), rel=1e-2)


def test_an_untied_model_with_a_stale_head_gets_other_causes(bench):
    one = bench()
    one.stubs[0].stale_head = True
    one.train()
    with pytest.raises(InputError, match="another precision"):
        one.ready()


def test_the_tolerance_is_what_the_user_says(bench):
    one = bench()
    one.stubs[0].stale_head = True
    one.train()
    assert len(one.ready(tolerance=50.0).sample(PROMPTS, 1, seed=1)) == len(PROMPTS)


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


def test_a_server_in_16_bits_may_differ_by_rounding_but_not_everywhere(bench):
    one = bench()
    one.stubs[0].says = {"dtype": "torch.bfloat16"}
    off = {"few": 0.7}

    def shift(choice):
        for at, score in enumerate(choice.get("prompt_logprobs", [])[1:]):
            for found in score.values():
                found["logprob"] += off.get("all", off.get("few", 0.0) if at % 10 == 0 else 0.0)
        return choice

    one.stubs[0].change = shift
    one.ready()
    off["all"] = 0.3
    with pytest.raises(InputError, match=r"by up to 0\.3 nats, on average by 0\.3,.*accepted: 1, on average 0\.2"):
        one.ready()
    one.stubs[0].says = {"dtype": "torch.float32"}
    off.clear()
    one.ready()
    off["few"] = float("nan")
    with pytest.raises(InputError, match="by up to nan"):
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


def test_a_failure_inside_the_server_is_not_repeated_while_weights_load(bench, waits):
    one = bench()
    sampler = one.sampler()
    sampler.attach(one.surroundings)
    one.stubs[0].replies["/collective_rpc"] = [(500, {}, "no such folder")]
    with pytest.raises(InputError, match="no such folder"):
        sampler.sync("main@1")
    assert one.stubs[0].paths()[-2:] == ["/collective_rpc", "/resume"]  # not left standing
    assert waits == []


def test_the_first_failure_ends_the_draw(bench, waits):
    one = bench()
    sampler = one.ready(concurrent=1)
    start = len(one.stubs[0].log)
    one.stubs[0].replies["/v1/completions"] = [(400, {}, "bad request")]
    with pytest.raises(InputError, match="bad request"):
        sampler.sample(PROMPTS, 8, seed=0)
    assert len(one.stubs[0].log) - start < 10  # of 40


def test_the_routes_that_push_weights_must_be_there(bench):
    one = bench()
    one.stubs[0].replies["/server_info"] = [(404, {}, "Not Found")]
    with pytest.raises(InputError, match="VLLM_SERVER_DEV_MODE=1"):
        one.sampler().attach(one.surroundings)


def test_a_prefix_cache_that_is_still_held_is_asked_again(bench, monkeypatch):
    import nashtune.samplers.vllm_server as server

    monkeypatch.setattr(server, "pause", lambda wait, cancelled: None)
    one = bench()
    sampler = one.sampler()
    sampler.attach(one.surroundings)
    one.stubs[0].replies["/reset_prefix_cache"] = [(200, {}, '{"success": false}')] * 2
    sampler.sync("main@1")
    assert one.stubs[0].paths().count("/reset_prefix_cache") == 3
    one.stubs[0].replies["/reset_prefix_cache"] = [(200, {}, '{"success": false}')] * 20
    with pytest.raises(InputError, match="prefix cache"):
        sampler.sync("main@2")


def test_weights_that_somebody_else_pushed_are_noticed(bench):
    one = bench()
    sampler = one.ready()
    one.stubs[0].version = "other run"
    with pytest.raises(InputError, match="servers of its own"):
        sampler.sample(PROMPTS, 1, seed=0)


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


def test_the_other_ranks_wait_for_rank_0_and_share_its_error(monkeypatch):
    calls: list[str] = []
    told: list[list[str | None]] = []
    for name, value in {
        "is_initialized": lambda: True,
        "barrier": lambda: calls.append("barrier"),
        "broadcast_object_list": lambda box, src: told.append(list(box)),
    }.items():
        monkeypatch.setattr(torch.distributed, name, value)

    def fails() -> str:
        calls.append("work")
        raise InputError("stale")

    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    with pytest.raises(InputError, match="stale"):
        on_rank_0(fails)
    assert calls == ["barrier", "work"] and told == [[None, "stale"]]

    def receive(box: list[str | None], src: int) -> None:
        box[:] = ["main@1-ab", None]

    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", receive)
    assert on_rank_0(fails) == "main@1-ab"
    assert calls == ["barrier", "work", "barrier"]


class FakeLLM:
    """`vllm.LLM` on top of the stand-in's model."""

    def __init__(self, model: str, **options: object) -> None:
        from pathlib import Path

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
