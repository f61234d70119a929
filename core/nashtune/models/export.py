"""A trained model into a folder that transformers or peft loads."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nashtune.logprobs.head import base_model
from nashtune.models.locate import TOKENIZER_FILES, ModelFolder

GENERATION = "generation_config.json"


def save_model(
    model: Any,
    folder: Path,
    source: ModelFolder,
    settings: Mapping[str, Any],
    *,
    merge: bool,
    finish: Callable[[Path], None] = lambda written: None,
) -> None:
    """Writes a model or its adapter, the tokenizer and the generation config.

    Everything is written beside `folder` first and then moved into it file by file: a full disk leaves what was there
    whole.

    Args:
        model: A transformers model or a peft model.
        folder: Where to.
        source: Where the model came from; its tokenizer and generation config are copied as they are.
        settings: Config values that training changed (cache, dropout), restored in the saved config.
        merge: Save full weights with the adapter merged in. This holds a second model in memory for a moment.
        finish: Called with what is written, before it is moved.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        # merging in place and unmerging after would leave rounding errors in weights that go on being trained
        target = copy.deepcopy(model).merge_and_unload(safe_merge=True) if merge else model
        if hasattr(target, "peft_config"):
            _save_adapter(target, partial)
        else:
            with _as_it_was(target, settings, keep_generation=not (source.base / GENERATION).is_file()):
                target.save_pretrained(partial)
            _copy((GENERATION,), source.base, partial)
        _copy(TOKENIZER_FILES, source.tokenizer, partial)
        finish(partial)
        folder.mkdir(exist_ok=True)
        (partial / ".new").touch()
        mode = (partial / ".new").stat().st_mode
        (partial / ".new").unlink()
        for file in sorted(partial.iterdir()):
            file.chmod(mode)  # safetensors makes files that nobody else may read, such as a server of another user
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save_adapter(model: Any, folder: Path) -> None:
    # "auto" would ask the hub whether the embedding was resized; it never is here
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


@contextmanager
def _as_it_was(model: Any, settings: Mapping[str, Any], *, keep_generation: bool) -> Iterator[None]:
    """Puts config values back while saving, and an empty generation config where the source's file is copied instead.

    transformers refuses to save a generation config that it finds inconsistent, which would be at the end of a
    training.
    """
    from transformers import GenerationConfig

    text = base_model(model).config.get_text_config()
    during = {name: getattr(text, name) for name in settings if hasattr(text, name)}
    generation = getattr(model, "generation_config", None)
    try:
        for name in during:
            setattr(text, name, settings[name])
        if not keep_generation:
            model.generation_config = GenerationConfig()
        yield
    finally:
        for name, value in during.items():
            setattr(text, name, value)
        model.generation_config = generation


def _copy(names: tuple[str, ...], source: Path, target: Path) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
