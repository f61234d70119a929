"""Sizes read from file headers are those of the weights in memory."""

from __future__ import annotations

import json
import shutil

import pytest

from nashtune.models.config import LoraSettings
from nashtune.models.locate import locate
from nashtune.models.sizes import context_length, ready_demo, trainable_bytes


def in_memory(policy) -> int:
    return sum(weight.numel() * weight.element_size() for weight in policy.trainable_state_dict().values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_weights_with_a_tied_head_counted_once(tiny, load, precision):
    assert trainable_bytes(locate(str(tiny)), precision, None) == in_memory(load(tiny, precision=precision))


@pytest.mark.parametrize(
    ("lora", "precision"),
    [
        (LoraSettings(r=4), "fp32"),
        (LoraSettings(r=4), "bf16"),
        (LoraSettings(r=2, target_modules=["q_proj", "down_proj"]), "fp32"),
    ],
)
def test_a_fresh_adapter(tiny, load, lora, precision):
    policy = load(tiny, lora=lora, precision=precision)
    assert trainable_bytes(locate(str(tiny)), precision, lora) == in_memory(policy)


def test_an_adapter_that_is_trained_further(sft_adapter, load):
    assert trainable_bytes(locate(str(sft_adapter)), "fp32", None) == in_memory(load(sft_adapter))


def test_a_fresh_adapter_on_a_merged_one(sft_adapter, load):
    lora = LoraSettings(r=3)
    assert trainable_bytes(locate(str(sft_adapter)), "fp32", lora) == in_memory(load(sft_adapter, lora=lora))


def test_other_weight_formats_do_not_say_their_size(tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert trainable_bytes(locate(str(folder)), "fp32", None) is None


def test_the_context_is_what_config_json_says(tiny, tmp_path):
    assert context_length(locate(str(tiny))) == 512
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    assert context_length(locate(str(folder))) is None
    (folder / "config.json").write_text(json.dumps({**config, "text_config": {"max_position_embeddings": 64}}))
    assert context_length(locate(str(folder))) == 64


def test_the_demo_model_is_looked_at_where_it_is_and_never_made(tmp_path, monkeypatch):
    monkeypatch.setenv("NASHTUNE_CACHE", str(tmp_path))
    assert ready_demo("demo:smollm2") is None
    folder = tmp_path / "smollm2-135m-instruct"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    found = ready_demo("demo:smollm2")
    assert found is not None
    assert found.base == folder
    assert ready_demo("hub:owner/name") is None
    assert list(tmp_path.iterdir()) == [folder]
