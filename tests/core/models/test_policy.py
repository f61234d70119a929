from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nashtune.errors import InputError
from nashtune.logprobs import get_engine
from nashtune.models.policy import HFPolicy, LoraSettings, PolicyConfig
from nashtune.testing import token_batch

Load = Callable[..., HFPolicy]
BATCH = token_batch([(3, 5), (4, 6)])
ENGINE = get_engine("tiled")


def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=BATCH.input_ids).logits.detach()


def shake(policy: HFPolicy) -> None:
    """Other weights, as after some training."""
    with torch.no_grad():
        for weight in policy.trainable_state_dict().values():
            weight.add_(0.1 * torch.randn_like(weight))


def test_full_weights(tiny: Path, load: Load) -> None:
    policy = load(tiny)
    assert policy.adapter == "none" and not policy.is_lora and policy.is_loaded
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in policy.parameters())
    assert policy.model.config.use_cache is False
    assert torch.equal(logits(policy.model), logits(AutoModelForCausalLM.from_pretrained(tiny)))
    assert policy.logprobs(BATCH, ENGINE).lengths.tolist() == [5, 6]


def test_bf16(tiny: Path, load: Load) -> None:
    policy = load(tiny, precision="bf16")
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.bfloat16}
    assert policy.logprobs(BATCH, ENGINE).sums.dtype == torch.float32


def test_nothing_is_read_before_load() -> None:
    policy = HFPolicy(PolicyConfig(path="nowhere"))
    assert not policy.is_loaded
    with pytest.raises(RuntimeError, match="load"):
        policy.logprobs(BATCH, ENGINE)
    with pytest.raises(InputError, match="nowhere"):
        policy.load()


def test_lora_trains_the_adapter_alone_and_starts_at_the_base(tiny: Path, load: Load) -> None:
    policy = load(tiny, lora=LoraSettings(r=2))
    assert policy.adapter == "fresh" and policy.is_lora
    trained = policy.trainable_state_dict()
    assert trained and all("lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)
    assert torch.equal(logits(policy.model), logits(AutoModelForCausalLM.from_pretrained(tiny)))


@pytest.mark.parametrize("lora", [None, LoraSettings(r=2)])
def test_gradient_checkpointing_changes_memory_and_nothing_else(
    tiny: Path, load: Load, lora: LoraSettings | None
) -> None:
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        policy = load(tiny, lora=lora, gradient_checkpointing=checkpointing)
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.05)
        assert policy.model.is_activation_checkpointing is checkpointing
        policy.logprobs(BATCH, ENGINE).sums.sum().backward()
        grads.append({name: p.grad for name, p in policy.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() and grads[0]
    for name in grads[0]:
        torch.testing.assert_close(grads[1][name], grads[0][name], msg=name)


def test_an_adapter_folder_is_trained_further(tiny: Path, sft_adapter: Path, load: Load) -> None:
    policy = load(sft_adapter)
    assert policy.adapter == "continued" and policy.is_adapter_folder
    assert all("lora_" in name for name in policy.trainable_state_dict())
    assert float((logits(policy.model) - logits(AutoModelForCausalLM.from_pretrained(tiny))).abs().max()) > 0.01


def test_a_fresh_adapter_on_an_sft_adapter_starts_where_sft_ended(sft_adapter: Path, load: Load) -> None:
    continued, fresh = load(sft_adapter), load(sft_adapter, lora=LoraSettings(r=4))
    assert fresh.adapter == "fresh" and fresh.merged_in_memory
    torch.testing.assert_close(logits(fresh.model), logits(continued.model), rtol=1e-4, atol=1e-5)
    ranks = {w.shape[0] for name, w in fresh.trainable_state_dict().items() if "lora_A" in name}
    assert ranks == {4}


def test_dropout_of_the_base_model_is_off_and_comes_back_in_the_export(tiny: Path, tmp_path: Path, load: Load) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5, "use_cache": True}))
    policy = load(folder)
    assert policy.model.training
    first, second = (policy.logprobs(BATCH, ENGINE).sums for _ in range(2))
    assert torch.equal(first, second)
    policy.save_pretrained(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved["attention_dropout"] == 0.5 and saved["use_cache"] is True
    assert policy.model.config.use_cache is False and policy.model.config.attention_dropout == 0.0


def test_what_is_trained_goes_into_a_checkpoint_and_back(tiny: Path, load: Load) -> None:
    for lora in (None, LoraSettings(r=2)):
        first, second = load(tiny, lora=lora), load(tiny, lora=lora)
        shake(first)
        assert not torch.equal(logits(first.model), logits(second.model))
        second.load_trainable_state_dict({name: w.clone() for name, w in first.trainable_state_dict().items()})
        assert torch.equal(logits(first.model), logits(second.model))


def test_tied_weights_are_one_weight(tiny: Path, load: Load) -> None:
    names = load(tiny).trainable_state_dict()
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {k: v for k, v in list(s.items())[1:]}, "missing"),
        (lambda s: {**s, "model.extra": torch.zeros(1)}, "model.extra"),
        (lambda s: {k: torch.zeros(3) for k in s}, r"\(3,\)"),
    ],
)
def test_a_checkpoint_of_another_policy_changes_nothing(
    tiny: Path, load: Load, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], said: str
) -> None:
    policy = load(tiny, lora=LoraSettings(r=2))
    before = {name: weight.clone() for name, weight in policy.trainable_state_dict().items()}
    with pytest.raises(InputError, match=said):
        policy.load_trainable_state_dict(change(before))
    assert all(torch.equal(before[name], weight) for name, weight in policy.trainable_state_dict().items())


def test_export_of_full_weights(tiny: Path, tmp_path: Path, load: Load) -> None:
    policy = load(tiny)
    shake(policy)
    policy.save_pretrained(tmp_path / "out")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(policy.model))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template and tokenizer("ab").input_ids == policy.tokenizer()("ab").input_ids
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # no half-written folder is left


def test_export_of_an_adapter_and_of_merged_weights(tiny: Path, tmp_path: Path, load: Load) -> None:
    policy = load(tiny, lora=LoraSettings(r=2))
    shake(policy)
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    policy.save_pretrained(tmp_path / "adapter")
    policy.save_pretrained(tmp_path / "merged", merged=True)
    assert all(torch.equal(before[name], weight) for name, weight in policy.named_parameters())  # unmerging would round
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    torch.testing.assert_close(logits(load(tmp_path / "adapter").model), logits(policy.model), rtol=1e-5, atol=1e-6)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(policy.model), rtol=1e-4, atol=1e-5)
    for folder in ("adapter", "merged"):
        assert AutoTokenizer.from_pretrained(tmp_path / folder).chat_template


def test_an_adapter_on_weights_that_are_in_no_folder_is_exported_merged(
    sft_adapter: Path, tmp_path: Path, load: Load
) -> None:
    """The trap: loaded on the base model that adapter_config.json names, the second adapter would lack the first."""
    policy = load(sft_adapter, lora=LoraSettings(r=2))
    shake(policy)
    policy.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(exported), logits(policy.model), rtol=1e-4, atol=1e-5)


def test_the_generation_config_is_kept_even_where_transformers_would_refuse_it(
    tiny: Path, tmp_path: Path, load: Load
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    text = json.dumps({"temperature": 0.6, "top_p": 0.9, "do_sample": False, "eos_token_id": [2, 5]})
    (folder / "generation_config.json").write_text(text)
    policy = load(folder)
    policy.model.generation_config.top_k = 3  # changed since it was loaded: transformers would now validate it strictly
    policy.save_pretrained(tmp_path / "out")
    assert (tmp_path / "out" / "generation_config.json").read_text() == text
    assert policy.model.generation_config.temperature == 0.6


def test_another_users_server_may_read_what_is_exported(tiny: Path, tmp_path: Path, load: Load) -> None:
    """The trap: safetensors makes files for their owner alone, whatever the user's umask says."""
    (tmp_path / "plain").touch()
    load(tiny).save_pretrained(tmp_path / "out")
    assert {file.stat().st_mode for file in (tmp_path / "out").iterdir()} == {(tmp_path / "plain").stat().st_mode}


def test_a_failed_export_leaves_the_folder_as_it_was(
    tiny: Path, tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load(tiny)
    policy.save_pretrained(tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    shake(policy)

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full_disk)
    with pytest.raises(OSError, match="No space"):
        policy.save_pretrained(tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_missing_weights_are_not_filled_with_random_numbers(tiny: Path, tmp_path: Path, load: Load) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights, such as model\.norm\.weight"):
        load(folder)


def test_a_cut_weight_file(tiny: Path, tmp_path: Path, load: Load) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be"):
        load(folder)


def test_config_from_plain_data() -> None:
    config = PolicyConfig.from_plain({"path": "m", "lora": {"r": 4, "target_modules": ["q_proj"]}})
    assert config.lora is not None and config.lora.r == 4 and config.precision == "fp32"
    with pytest.raises(InputError, match="did you mean 'alpha'"):
        PolicyConfig.from_plain({"path": "m", "lora": {"alhpa": 4}})
    with pytest.raises(InputError, match="did you mean 'precision'"):
        PolicyConfig.from_plain({"path": "m", "precison": "fp32"})
    with pytest.raises(InputError, match=r"policy\.path"):
        PolicyConfig.from_plain({})
