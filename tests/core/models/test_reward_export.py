from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nashtune.data.conversations import Conversations
from nashtune.errors import InputError
from nashtune.models.config import LoraSettings
from nashtune.models.normaliser import Normaliser
from nashtune.models.reward_export import finish_export, padding_token
from nashtune.models.reward_folder import REWARD_FILE, RewardFile, read_reward_file
from nashtune.models.reward_head import active_head
from nashtune.models.reward_policy import RewardPolicy
from nashtune.testing import token_batch

Load = Callable[..., RewardPolicy]
EOS = 2


def ended_by_eos(pad: int):
    """Texts of unequal lengths that end in EOS, padded with a token."""
    batch = token_batch([(3, 5), (4, 9), (2, 2), (5, 1)])
    lengths = batch.attention_mask.sum(1)
    batch.input_ids[torch.arange(4), lengths - 1] = EOS
    batch.input_ids[batch.attention_mask == 0] = pad
    return batch


BATCH = ended_by_eos(EOS)


def shake(policy: RewardPolicy) -> None:
    """Other weights, as after some training."""
    with torch.no_grad():
        for value in policy.trainable_state_dict().values():
            value.add_(0.1 * torch.randn_like(value))


def plainly(model: torch.nn.Module, folder: Path) -> torch.Tensor:
    """Scores as somebody without nashtune gets them: the folder's tokenizer pads, the model is called."""
    pad = AutoTokenizer.from_pretrained(folder).pad_token_id
    batch = ended_by_eos(pad)
    with torch.no_grad():
        return model.eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


def plain_adapter(base: Path, folder: Path, members: int, **settings: object) -> torch.nn.Module:
    pad = AutoTokenizer.from_pretrained(folder).pad_token_id
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=members, pad_token_id=pad, dtype="float32", **settings
    )
    return PeftModel.from_pretrained(model, folder)


def test_full_weights_come_back_bit_for_bit(tiny: Path, tmp_path: Path, load_reward: Load) -> None:
    policy = load_reward(tiny, members=3)
    shake(policy)
    expected = policy.scores(BATCH).detach()
    policy.save_pretrained(tmp_path / "out")
    ours = load_reward(tmp_path / "out", members=3, seed=99)
    assert torch.equal(ours.scores(BATCH), expected)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_labels == 3 and model.config.architectures == ["LlamaForSequenceClassification"]
    assert torch.equal(model.score.weight, policy.model.score.weight)
    torch.testing.assert_close(plainly(model, tmp_path / "out"), expected, atol=1e-6, rtol=0)


def test_an_adapter_comes_back_with_its_head_bit_for_bit(tiny: Path, tmp_path: Path, load_reward: Load) -> None:
    policy = load_reward(tiny, members=3, lora=LoraSettings(r=2))
    shake(policy)
    expected = policy.scores(BATCH).detach()
    policy.save_pretrained(tmp_path / "out")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert torch.equal(saved["base_model.model.score.weight"], active_head(policy.model).weight)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and config["modules_to_save"] == ["score"]

    ours = load_reward(tmp_path / "out", members=3, seed=99)
    assert torch.equal(ours.scores(BATCH), expected) and ours.adapter == "continued"
    assert ours.trainable_state_dict().keys() == policy.trainable_state_dict().keys()
    plain = plain_adapter(tiny, tmp_path / "out", 3)
    assert torch.equal(active_head(plain).weight, active_head(policy.model).weight)
    torch.testing.assert_close(plainly(plain, tmp_path / "out"), expected, atol=1e-6, rtol=0)

    policy.save_pretrained(tmp_path / "merged", merged=True)
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert torch.equal(merged.score.weight, active_head(policy.model).weight)
    torch.testing.assert_close(plainly(merged, tmp_path / "merged"), expected, atol=1e-5, rtol=1e-4)
    assert "base" not in json.loads((tmp_path / "merged" / REWARD_FILE).read_text())


def test_a_head_on_a_bfloat16_trunk_is_not_rounded(tiny: Path, tmp_path: Path, load_reward: Load) -> None:
    for name, settings in (("full", {"trunk": "frozen"}), ("adapter", {"lora": LoraSettings(r=2)})):
        policy = load_reward(tiny, precision="bf16", **settings)
        shake(policy)
        policy.save_pretrained(tmp_path / name)
        weight = active_head(policy.model).weight.detach()
        assert not torch.equal(weight, weight.bfloat16().float())
        ours = load_reward(tmp_path / name, precision="bf16", seed=99)
        with torch.no_grad():  # kernels of bfloat16 may differ with and without gradients
            assert torch.equal(ours.scores(BATCH), policy.scores(BATCH))
        plain = (
            plain_adapter(tiny, tmp_path / name, 1)
            if name == "adapter"
            else AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
        )
        assert torch.equal(active_head(plain).weight, weight)


def test_padding_gets_a_token_of_its_own_where_it_is_the_eos_that_ends_texts(
    tiny: Path, tmp_path: Path, load_reward: Load
) -> None:
    """Otherwise plain transformers reads the score before EOS, where all answers may look alike."""
    policy = load_reward(tiny)
    policy.save_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<unk>", "</s>")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer("a longer text").input_ids == policy.tokenizer()("a longer text").input_ids
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    expected = policy.scores(BATCH).detach()
    torch.testing.assert_close(plainly(model, tmp_path / "out"), expected, atol=1e-6, rtol=0)
    model.config.pad_token_id = EOS  # as the language model's folder says
    with torch.no_grad():
        early = model(input_ids=BATCH.input_ids, attention_mask=BATCH.attention_mask).logits
    assert float((early - expected).abs().min()) > 1e-3


def test_a_padding_token_that_ends_no_text_stays(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    newline = tokenizer.convert_tokens_to_ids("Ċ")
    assert padding_token(tokenizer, newline) == "</s>"  # a template that writes a line break after EOS
    assert padding_token(tokenizer, EOS) == "<unk>"
    tokenizer.unk_token = None
    assert padding_token(tokenizer, EOS) in ("<s>", "<unk>")


def test_what_consumers_must_know_is_beside_the_weights(tiny: Path, tmp_path: Path, load_reward: Load) -> None:
    policy = load_reward(tiny, members=2, lora=LoraSettings(r=2))
    policy.normaliser, policy.template, policy.max_length = Normaliser(gain=[0.5, 2], bias=[1, -1]), "plain", 64
    policy.save_pretrained(tmp_path / "out")
    assert json.loads((tmp_path / "out" / REWARD_FILE).read_text()) == {
        "members": 2,
        "gain": [0.5, 2],
        "bias": [1, -1],
        "template": "plain",
        "max_length": 64,
        "base": str(tiny),
    }
    found = read_reward_file(tmp_path / "out", "oracle.path")
    assert found is not None and found.gain == [0.5, 2] and read_reward_file(tiny, "oracle.path") is None


def test_one_output_of_an_ensemble_goes_on_as_an_adapter(tiny: Path, tmp_path: Path, load_reward: Load) -> None:
    heads = load_reward(tiny, members=3)
    shake(heads)
    heads.save_pretrained(tmp_path / "heads")
    policy = load_reward(tmp_path / "heads", member=1, lora=LoraSettings(r=2))
    torch.testing.assert_close(policy.scores(BATCH)[:, 0], heads.scores(BATCH)[:, 1], atol=1e-6, rtol=0)
    shake(policy)
    policy.save_pretrained(tmp_path / "member")
    again = load_reward(tmp_path / "member")
    assert torch.equal(again.scores(BATCH), policy.scores(BATCH)) and again.members == 1
    plain = plain_adapter(tmp_path / "heads", tmp_path / "member", 1, ignore_mismatched_sizes=True)
    torch.testing.assert_close(plainly(plain, tmp_path / "member"), policy.scores(BATCH).detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_the_language_models_dropout_and_cache_come_back(
    tiny: Path, tmp_path: Path, load_reward: Load, name: str
) -> None:
    policy = load_reward(tiny, lora=LoraSettings(r=2) if name.startswith("adapter") else None)
    policy.save_pretrained(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / name).read_text())
    assert saved.get("use_cache", True) is True and not list(tmp_path.glob(".out*"))


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "red\n"}]
FACTS = RewardFile(members=1, gain=[1.0], bias=[0.0], template="chat", max_length=64)


@pytest.fixture
def chatml(tiny: Path, tmp_path: Path) -> Callable[..., Any]:
    """Save the tiny tokenizer with ChatML's tokens and a template, in a file or in its config; read it again."""

    def make(template: object, *, in_config: bool = False) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.eos_token = "<|im_end|>"
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path, save_jinja_files=not in_config)
        assert (tmp_path / "chat_template.jinja").exists() != in_config
        return AutoTokenizer.from_pretrained(tmp_path)

    return make


def end_at_eos(tokenizer: Any, folder: Path) -> None:
    """The folder's chat template becomes one that ends at EOS and opens another turn as before."""
    trained = Conversations(tokenizer, "chat", "here", ends_at_eos=True).encode("Hello", "red\n").ids
    assert trained[-1] == tokenizer.eos_token_id
    opened = tokenizer.apply_chat_template(TURNS[:1], tokenize=False, add_generation_prompt=True)
    finish_export(folder, FACTS, tokenizer)
    saved = AutoTokenizer.from_pretrained(folder)
    assert saved.apply_chat_template(TURNS, tokenize=True, return_dict=False) == trained
    assert saved.apply_chat_template(TURNS[:1], tokenize=False, add_generation_prompt=True) == opened


def test_a_saved_template_ends_where_training_read_the_score(chatml: Callable[..., Any], tmp_path: Path) -> None:
    """ChatML puts a line break behind the turn; anybody's apply_chat_template gives what was trained on."""
    end_at_eos(chatml(CHATML), tmp_path)


@pytest.mark.parametrize("named", [False, True])
def test_a_template_in_the_tokenizers_config_is_saved_as_a_file(
    chatml: Callable[..., Any], tmp_path: Path, named: bool
) -> None:
    """As older folders have it, alone or with others by name."""
    end_at_eos(chatml({"default": CHATML, "tool_use": "tools"} if named else CHATML, in_config=True), tmp_path)
    assert "chat_template" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (tmp_path / "chat_template.jinja").is_file()


@pytest.mark.parametrize(
    ("before", "after"),
    [("\n", ""), ("\n\n ", ""), ("  {% if true %}{% endif %}", ""), ("", "\n"), ("", "\n  "), ("", " x\n")],
)
def test_whitespace_of_a_template_stays(chatml: Callable[..., Any], tmp_path: Path, before: str, after: str) -> None:
    """Blocks trim what stands beside them, so a block around a template could trim what it begins or ends with."""
    end_at_eos(chatml(before + CHATML + "{% if add_generation_prompt %}{{ '>' }}" + after + "{% endif %}"), tmp_path)
    if not after.strip():
        end_at_eos(chatml(before + CHATML + after), tmp_path)


def test_a_template_that_would_say_something_else_is_refused(
    chatml: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = chatml(CHATML)
    monkeypatch.setattr("nashtune.models.reward_export.SHOWN", "{{ nashtune_text }}")
    with pytest.raises(InputError, match=r"ends where the score is read: .*<\|im_end\|>.n' and not"):
        finish_export(tmp_path, FACTS, tokenizer)


def test_a_tokenizer_without_a_token_to_pad_with_says_so(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr("nashtune.models.reward_export.padding_token", lambda tokenizer, end: None)
    before = (tmp_path / "tokenizer_config.json").read_bytes()
    with caplog.at_level("INFO"):
        finish_export(tmp_path, FACTS, tokenizer)
    assert "no special token but </s>" in caplog.text and "one token early" in caplog.text
    assert (tmp_path / "tokenizer_config.json").read_bytes() == before
