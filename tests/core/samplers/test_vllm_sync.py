"""The sampler `vllm` pushes weights to a stand-in for the server, and notices when they are not the live ones."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from nashtune.errors import InputError
from nashtune.samplers.vllm_fleet import on_rank_0
from nashtune.samplers.vllm_probe import probe_ids, token_logp
from ranks import call_on_ranks
from vllm_bench import PROMPTS

PUSH = ["/pause", "/collective_rpc", "/update_weight_version", "/resume", "/reset_prefix_cache"]


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


def test_a_failure_inside_the_server_is_not_repeated_while_weights_load(bench, waits):
    one = bench()
    sampler = one.sampler()
    sampler.attach(one.surroundings)
    one.stubs[0].replies["/collective_rpc"] = [(500, {}, "no such folder")]
    with pytest.raises(InputError, match="no such folder"):
        sampler.sync("main@1")
    assert one.stubs[0].paths()[-2:] == ["/collective_rpc", "/resume"]  # not left standing
    assert waits == []


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


def rank_0_works(rank: int, folder: str) -> None:
    """In each of two processes: what rank 0 did is there when the others go on, and they learn why it failed."""
    file = Path(folder) / "pushed"

    def push() -> str:
        assert rank == 0
        time.sleep(0.2)
        file.write_text("weights")
        return "main@1-ab"

    def fails() -> str:
        raise OSError("no space left")

    assert on_rank_0(push) == "main@1-ab" and file.exists()
    with pytest.raises(OSError if rank == 0 else InputError, match="no space left"):
        on_rank_0(fails)


def test_the_other_ranks_wait_for_rank_0_and_learn_why_it_failed(tmp_path):
    call_on_ranks(rank_0_works, tmp_path, str(tmp_path))
