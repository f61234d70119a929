from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from nashtune.errors import InputError
from nashtune.models.config import LoraSettings, PolicyConfig
from nashtune.models.locate import locate, resolve_model_path
from nashtune.models.preflight import check_folder, load_tokenizer, preflight
from nashtune.references.adapter_off import AdapterOffReference
from nashtune.references.checkpoint import CheckpointReference


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_a_good_folder_passes(tiny: Path) -> None:
    found = preflight(PolicyConfig(path=str(tiny), lora=LoraSettings(target_modules=["q_proj", "down_proj"])))
    assert found.path == found.base == found.tokenizer == tiny and not found.is_adapter
    assert [file.name for file in found.weight_files()] == ["model.safetensors"]


def test_an_adapter_folder_knows_its_base(tiny: Path, sft_adapter: Path) -> None:
    found = check_folder(str(sft_adapter), chat=True)
    assert found.is_adapter and found.base == tiny.resolve()
    assert [file.name for file in found.weight_files()] == ["model.safetensors", "adapter_model.safetensors"] or [
        file.name for file in found.weight_files()
    ] == ["adapter_model.safetensors", "model.safetensors"]


def test_no_folder_and_its_neighbour(folder: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'model'"):
        locate(str(folder.parent / "modle"))
    with pytest.raises(InputError, match=r"hub:meta/nothing"):
        locate("meta/nothing")
    with pytest.raises(InputError, match="is a file"):
        locate(str(folder / "config.json"))
    with pytest.raises(InputError, match="did you mean 'smollm2'"):
        resolve_model_path("demo:smolm2")


def test_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"policy\.path: cannot get hub:nobody/nothing-at-all"):
        locate("hub:nobody/nothing-at-all")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), r"no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json cannot be read"),
        (lambda f: (f / "chat_template.jinja").unlink(), "no chat template; set data.template: plain"),
    ],
)
def test_a_bad_folder(folder: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=said):
        preflight(PolicyConfig(path=str(folder)))


def test_a_plain_template_needs_no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert preflight(PolicyConfig(path=str(folder)), template="plain").base == folder


def test_a_chat_template_inside_the_tokenizer_config(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    assert preflight(PolicyConfig(path=str(folder))).base == folder


@pytest.mark.parametrize(("size", "accepted"), [(100, False), (261, False), (262, True), (320, True)])
def test_tokenizer_and_model_vocabulary(folder: Path, size: int, accepted: bool) -> None:
    """A larger embedding is padding and usual; a smaller one lacks tokens."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": size}))
    if accepted:
        assert check_folder(str(folder), chat=True).base == folder
        return
    with pytest.raises(InputError, match=rf"262 tokens.*vocabulary of {size}"):
        check_folder(str(folder), chat=True)


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (["q_proj", "q_prj"], "'q_prj' is not a module of LlamaForCausalLM; did you mean 'q_proj'"),
        (["self_attn"], "LlamaAttention; an adapter goes on linear layers"),
        (["lm_head"], "share"),
        (["embed_tokens"], "share"),
        ([], "empty"),
    ],
)
def test_lora_on_a_wrong_module(tiny: Path, modules: list[str], said: str) -> None:
    with pytest.raises(InputError, match=r"policy\.lora\.target_modules") as refused:
        preflight(PolicyConfig(path=str(tiny), lora=LoraSettings(target_modules=modules)))
    assert said in str(refused.value)


@pytest.mark.parametrize("reference", ["adapter_off", AdapterOffReference()])
def test_adapter_off_after_an_sft_adapter(sft_adapter: Path, tiny: Path, reference: object) -> None:
    """The trap: the SFT adapter switched off is the base model, not the SFT model."""
    with pytest.raises(InputError, match=r"spec\.references\.ref: .*base model and not the SFT model"):
        preflight(PolicyConfig(path=str(sft_adapter)), references={"ref": reference})
    with pytest.raises(InputError, match="no adapter to switch off"):
        preflight(PolicyConfig(path=str(tiny)), references={"ref": reference})
    for path in (tiny, sft_adapter):
        assert preflight(PolicyConfig(path=str(path), lora=LoraSettings()), references={"ref": reference})


def test_a_checkpoint_reference_is_looked_at_before_the_policy_loads(tiny: Path) -> None:
    references = {"ref": CheckpointReference(path="nowhere/at-all")}
    with pytest.raises(InputError, match=r"spec\.references\.ref\.path: no folder nowhere/at-all"):
        preflight(PolicyConfig(path=str(tiny)), references=references)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING; allowed: LORA"),
        ({"base_model_name_or_path": None}, "does not say base_model_name_or_path"),
        ({"base_model_name_or_path": "/gone/model"}, "needs its base model /gone/model"),
    ],
)
def test_a_bad_adapter_folder(sft_adapter: Path, change: dict[str, object], said: str) -> None:
    file = sft_adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=said):
        check_folder(str(sft_adapter), chat=True)


def test_an_adapter_whose_base_is_beside_it(tiny: Path, sft_adapter: Path) -> None:
    shutil.copytree(tiny, sft_adapter / "base")
    file = sft_adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "base"}))
    assert locate(str(sft_adapter)).base == (sft_adapter / "base").resolve()


def test_an_adapter_without_weights(sft_adapter: Path) -> None:
    weights = load_file(sft_adapter / "adapter_model.safetensors")
    (sft_adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights"):
        check_folder(str(sft_adapter), chat=True)
    save_file(weights, sft_adapter / "adapter_model.safetensors")
    assert check_folder(str(sft_adapter), chat=True).is_adapter


def test_the_tokenizer_of_an_adapter_is_its_own_or_that_of_its_base(tiny: Path, sft_adapter: Path) -> None:
    assert locate(str(sft_adapter)).tokenizer == sft_adapter
    for file in sft_adapter.glob("tokenizer*"):
        file.unlink()
    assert locate(str(sft_adapter)).tokenizer == tiny.resolve()
    assert load_tokenizer(sft_adapter)("ab").input_ids == load_tokenizer(tiny)("ab").input_ids


def test_the_folder_check_imports_no_torch(tiny: Path) -> None:
    code = (
        "import sys; from nashtune.models.preflight import preflight; from nashtune.models.config import PolicyConfig;"
        f"preflight(PolicyConfig(path={str(tiny)!r}), references={{'ref': 'base'}});"
        "print([m for m in ('torch', 'transformers', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
