"""The judge against a real `transformers serve` on loopback, with models small enough to start in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch

from nashtune.errors import InputError
from nashtune.oracles import judge_client
from nashtune.oracles.judge import JudgeOracle
from ranks import free_port

# The chat template reads both answers and ends the prompt with a letter; the model writes the letter's verdict.
JUDGE_TEMPLATE = (
    "{% set parts = messages[0]['content'].split('|') %}"
    "{% set kind = parts | map('trim') | map('lower') | list %}"
    "{% if kind | length < 3 %}z"
    "{% elif 'lovely' in kind[1] and 'lovely' not in kind[2] %}x"
    "{% elif 'lovely' in kind[2] and 'lovely' not in kind[1] %}y"
    "{% else %}z{% endif %}"
)
NEXT = {"x": "A", "y": "B", "z": "T", "A": "</s>", "B": "</s>", "T": "</s>"}
PROMPT_TEMPLATE = "{prompt}|{first}|{second}"


@pytest.fixture(scope="module")
def judge_model(tiny, tmp_path_factory):
    """A Llama that only looks at the last token: embeddings are one-hot, its one layer adds nothing, and the head says
    which token comes next."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("judge")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = JUDGE_TEMPLATE
    config = LlamaConfig.from_pretrained(tiny)
    config.hidden_size, config.num_hidden_layers, config.tie_word_embeddings = 264, 1, False
    config.head_dim = 264 // config.num_attention_heads
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), 264))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        for last, following in NEXT.items():
            a, b = tokenizer.convert_tokens_to_ids([last, following])
            model.lm_head.weight[b, a] = 10.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of a `transformers serve` that this module starts and stops."""
    port = free_port()
    command = "from transformers.cli.transformers import main; main()"
    options = ["serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    home = tmp_path_factory.mktemp("serve")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    (home / "hub").mkdir()  # without it GET /v1/models fails
    log = home / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", command, *options], env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        while True:
            assert process.poll() is None, log.read_text()
            try:
                open_url(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def make(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(judge_client, "FIRST_WAIT", 0.1)

    def oracle(model, **options) -> JudgeOracle:
        given = {"prompt_template": PROMPT_TEMPLATE, "verdict": "^(A|B|T)$", "verdicts": ("A", "B", "T")}
        given |= {"max_tokens": 4, "cache": str(tmp_path / "answers"), "max_parallel": 2}
        return JudgeOracle(url=server, model=str(model), **(given | options))

    return oracle


def test_a_served_model_judges(make, judge_model):
    oracle = make(judge_model)
    oracle.prepare()
    prompts = ["How is the day?"] * 4
    first = ["It is lovely.", "Grey.", "A lovely day.", "Grey."]
    second = ["It is grey.", "Lovely!", "Lovely, lovely.", "Wet."]
    p = oracle.compare(prompts, first, second)
    assert p.tolist() == [1.0, 0.0, 0.5, 0.5]
    assert oracle.counts() == {
        "comparisons": 4,
        "requests": 9,
    }  # one of them by prepare; the server lists what is in its hub cache: nothing
    again = make(judge_model)
    assert torch.equal(again.compare(prompts, second, first), 1 - p)
    assert again.counts() == {"comparisons": 4, "cache_hits": 8}


def test_a_served_model_that_babbles_is_counted_and_stops_the_run(make, tiny):
    oracle = make(tiny, max_parallel=1, asks=2)
    oracle.prepare()
    with pytest.raises(InputError, match=r"was asked 2 times and gave no verdict; its last answer: .*0 of the 2"):
        oracle.compare(["Hi"], ["one"], ["two"])
    assert oracle.counts() == {"requests": 3, "unparsed_answers": 2}
    dropped = make(tiny, asks=2, on_parse_failure="drop")
    assert dropped.compare(["Hi"], ["one"], ["two"]).isnan().all()
    assert dropped.counts() == {"comparisons": 1, "requests": 4, "unparsed_answers": 4, "unparsed": 1}


def test_further_fields_reach_the_server(make, tiny):
    from transformers import AutoTokenizer

    letter = AutoTokenizer.from_pretrained(tiny).convert_tokens_to_ids("A")
    oracle = make(tiny, max_tokens=1, extra={"logit_bias": {str(letter): 100.0}})
    assert oracle.compare(["Hi"], ["one"], ["two"]).tolist() == [0.5]  # it says A in both orders
    assert oracle.counts() == {"comparisons": 1, "requests": 2, "position_decides": 1}


def test_what_the_server_refuses_is_passed_on(make, tiny, tmp_path):
    with pytest.raises(InputError, match=r"HTTP 422: .*no_such_field"):
        make(tiny, extra={"no_such_field": 1}).compare(["Hi"], ["one"], ["two"])
