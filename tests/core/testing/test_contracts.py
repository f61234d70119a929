"""Every component and every spec that is installed holds to its contract; nobody is named here but those that need
something from outside: a folder, a server, a game."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chat_stub import chat_stub
from nashtune.oracles import judge_client
from nashtune.testing import check_component, check_spec, components_of, label, specs_of
from nashtune.testing.policies import tiny_folder, tiny_heads
from nashtune.testing.samplers import PROMPTS
from nashtune.training import finish
from vllm_stub import Stub

Outside = Callable[[Path, ExitStack], dict[str, Any]]


def recorded(folder: Path, stack: ExitStack) -> dict[str, Any]:
    rows = [
        {"prompt": i, "k": k, "token_ids": [30 + i, 40 + k, 2], "token_logp": [-1.0, -2.0, -0.5]}
        for i in range(len(PROMPTS))
        for k in range(4)
    ]
    path = folder / "recorded.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path)}


def server(folder: Path, stack: ExitStack) -> dict[str, Any]:
    stub = Stub(tiny_folder())
    stack.callback(stub.close)
    return {"servers": [stub.url], "retries": 2}


def judge(folder: Path, stack: ExitStack) -> dict[str, Any]:
    stub = stack.enter_context(chat_stub())
    return {"url": stub.url, "model": "stub", "cache": str(folder / "answers")}


OUTSIDE: dict[str, Outside] = {
    "kl-adaptive": lambda folder, stack: {"beta": 0.1},
    "stage-fit": lambda folder, stack: {"spec": "dpo"},
    "reference-checkpoint": lambda folder, stack: {"path": str(tiny_folder())},
    "sampler-recorded": recorded,
    "sampler-vllm": server,
    "oracle-judge": judge,
    "oracle-matrix": lambda folder, stack: {
        "game": "rps",
        "answers": ["rock", "paper", "scissors"],
        "texts": ["rock", "paper", "scissors"],
    },
    "oracle-preference_model": lambda folder, stack: {"path": str(tiny_folder())},
    "oracle-raters": lambda folder, stack: {"raters": ["length", "brevity", "distinct_1"]},
    "oracle-rules": lambda folder, stack: {"rules": ["length", "regex:o"], "weights": [1.0, -2.0]},
    "oracle-reward_model": lambda folder, stack: {"path": str(one_head(folder))},
    "oracle-reward_ensemble": lambda folder, stack: {"path": str(tiny_heads()), "members": 3},
}


def one_head(folder: Path) -> Path:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tiny_folder(), num_labels=1)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(folder / "reward")
    AutoTokenizer.from_pretrained(tiny_folder()).save_pretrained(folder / "reward")
    return folder / "reward"


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(judge_client, "FIRST_WAIT", 0.01)
    with ExitStack() as found:
        yield found


@pytest.mark.parametrize("component", components_of(), ids=label)
def test_component(component, tmp_path, stack):
    outside = OUTSIDE.get(label(component), lambda folder, stack: {})
    check_component(component, **outside(tmp_path, stack))


@pytest.mark.loads
@pytest.mark.parametrize("name", specs_of())
def test_spec(name, tmp_path, lightning_log, monkeypatch):
    monkeypatch.setattr(finish, "draw_curves", lambda *args, **options: None)  # a third of the time, and no contract
    check_spec(name, tmp_path)


def test_every_kind_is_there():
    kinds = {label(component).partition("-")[0] for component in components_of()}
    assert kinds == {"loss", "kl", "oracle", "sampler", "pairing", "schedule", "reference", "stage"}
    assert {label(component) for component in components_of()} >= set(OUTSIDE)
