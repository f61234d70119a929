from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nashtune.errors import InputError
from nashtune.models.config import LoraSettings, PolicyConfig
from nashtune.models.locate import locate
from nashtune.models.normaliser import Normaliser
from nashtune.models.preflight import preflight
from nashtune.models.reward_folder import REWARD_FILE, head_width, read_reward_file
from nashtune.models.reward_policy import RewardPolicy
from nashtune.spec.model import HeadSpec

Load = Callable[..., RewardPolicy]


@pytest.fixture
def reward(tiny: Path, tmp_path: Path, load_reward: Load) -> Path:
    """A reward model with three outputs."""
    load_reward(tiny, members=3).save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


@pytest.fixture
def adapter(tiny: Path, tmp_path: Path, load_reward: Load) -> Path:
    """The same as an adapter."""
    load_reward(tiny, members=3, lora=LoraSettings(r=2)).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def refused(path: Path, lora: LoraSettings | None = None, **head: object) -> str:
    """The message of the check without weights, which must be that of loading."""
    config = PolicyConfig(path=str(path), lora=lora)
    with pytest.raises(InputError) as early:
        preflight(config, head=HeadSpec(**head))
    return str(early.value)


def refused_twice(path: Path, lora: LoraSettings | None = None, **head: object) -> str:
    message = refused(path, lora, **head)
    with pytest.raises(InputError) as late:
        RewardPolicy(PolicyConfig(path=str(path), lora=lora), HeadSpec(**head)).load()
    assert str(late.value) == message
    return message


def without_head(folder: Path, file: str) -> None:
    weights = load_file(folder / file)
    save_file({name: value for name, value in weights.items() if "score" not in name}, folder / file)


def test_widths(tiny: Path, sft_adapter: Path, reward: Path, adapter: Path) -> None:
    assert [head_width(locate(str(path)), "x") for path in (tiny, sft_adapter, reward, adapter)] == [None, None, 3, 3]


def test_another_width_is_refused(reward: Path, adapter: Path) -> None:
    for path in (reward, adapter):
        message = refused_twice(path, members=2)
        assert f"the score head of {path} has 3 output(s), and the spec asks for 2" in message
        assert "--spec.head.members 3" in message
    assert "--spec.head.member 0" in refused_twice(reward) and "head.member 0" not in refused_twice(adapter)
    preflight(PolicyConfig(path=str(reward)), head=HeadSpec(members=3))
    preflight(PolicyConfig(path=str(reward)), head=HeadSpec(member=2))


def test_an_output_that_is_not_there_is_refused(tiny: Path, reward: Path, adapter: Path) -> None:
    assert "spec.head.member: 3, but the head of" in refused_twice(reward, member=3)
    assert "has no score head yet" in refused_twice(tiny, member=0)
    assert "is an adapter, whose head is trained on as it is" in refused_twice(adapter, member=0)


def test_a_reward_model_without_its_head_is_refused(reward: Path, adapter: Path) -> None:
    without_head(reward, "model.safetensors")
    assert (
        "a score head (score.weight), as decoders such as Llama or Qwen have it, is missing among the weights"
        in refused_twice(reward, members=3)
    )
    without_head(adapter, "adapter_model.safetensors")
    assert "its score head is missing" in refused_twice(adapter, members=3)


def test_a_frozen_trunk_takes_no_adapter(tiny: Path, adapter: Path) -> None:
    message = refused_twice(tiny, LoraSettings(r=2), trunk="frozen")
    assert "spec.head.trunk: frozen" in message and "leave policy.lora out" in message
    assert "merge the adapter into its base model first" in refused_twice(adapter, members=3, trunk="frozen")


def test_a_language_model_is_not_trained_from_a_reward_model(reward: Path, adapter: Path) -> None:
    for path in (reward, adapter):
        with pytest.raises(InputError, match="is a reward model, and this spec trains a language model"):
            preflight(PolicyConfig(path=str(path)))


def test_a_gain_that_is_not_carried_over_is_said(
    tiny: Path, reward: Path, load_reward: Load, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = PolicyConfig(path=str(reward))
    preflight(config, head=HeadSpec(members=3))  # gain 1, bias 0
    policy = load_reward(tiny, members=3)
    policy.normaliser = Normaliser(gain=[2.0] * 3, bias=[0.0] * 3)
    policy.save_pretrained(reward)
    preflight(config, head=HeadSpec(members=3, normalise="bias"))
    assert "gain" not in caplog.text
    preflight(config, head=HeadSpec(members=3))
    assert f"policy.path: {reward} has a gain and a bias, which are not carried over" in caplog.text
    assert "--spec.head.normalise gain_bias" in caplog.text


def test_adapters_go_on_layers_that_a_reward_model_has(tiny: Path) -> None:
    assert "is the score head, which is trained whole" in refused(
        tiny, LoraSettings(target_modules=["q_proj", "score"])
    )
    assert "'lm_head' is not a module of LlamaForSequenceClassification" in refused(
        tiny, LoraSettings(target_modules=["lm_head"])
    )


def test_a_head_that_would_not_be_read_as_trained_is_refused(reward: Path) -> None:
    weights = load_file(reward / "model.safetensors")
    save_file({**weights, "score.bias": torch.ones(3)}, reward / "model.safetensors")
    with pytest.raises(InputError, match=r"score\.bias, which LlamaForSequenceClassification does not read"):
        RewardPolicy(PolicyConfig(path=str(reward)), HeadSpec(members=3)).load()


def test_an_encoder_is_refused(tiny: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    folder = Path(shutil.copytree(tiny, tmp_path / "bert"))
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertForSequenceClassification(BertConfig(vocab_size=262, num_labels=1, **sizes)).save_pretrained(folder)
    with pytest.raises(InputError, match=r"is a BertForSequenceClassification, but a score head \(score\.weight\)"):
        RewardPolicy(PolicyConfig(path=str(folder)), HeadSpec()).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gain": [1.0]}, "has 1 gains and 3 biases for 3 members"),
        ({"gian": [1.0]}, "is not what nashtune writes"),
    ],
)
def test_a_damaged_reward_file_is_refused(reward: Path, change: dict[str, object], message: str) -> None:
    file = reward / REWARD_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        read_reward_file(reward, "oracle.path")
