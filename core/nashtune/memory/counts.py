"""Tokens of texts, counted once: a tokenizer takes longer to load than all the rest of a check does to run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from nashtune.cache import cache_root
from nashtune.files import atomic_path
from nashtune.models.locate import ModelFolder, read_json

TOKENIZER, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
USUAL_TURN = 6  # tokens around a message, where the template cannot be applied here


def count_tokens(texts: Sequence[str], folder: ModelFolder, *, chat: bool) -> tuple[list[int], int]:
    """Tokens of each text, and those that the chat template adds around a message (0 without it).

    What was counted is kept in the cache folder, under these texts and the tokenizer's files: their paths, sizes and
    times of change.

    Args:
        texts: Plain texts.
        folder: Of a model whose tokenizer has a tokenizer.json.
        chat: Whether prompts go through the chat template.
    """
    kept = cache_root() / "token-counts" / f"{_key(texts, folder, chat=chat)}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or not whole: counted again
        known = json.loads(kept.read_text(encoding="utf-8"))
        if len(known["tokens"]) == len(texts):
            return [int(number) for number in known["tokens"]], int(known["turn"])
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder.tokenizer / TOKENIZER))
    tokens = [_size(tokenizer, text) for text in texts]
    turn = turn_tokens(tokenizer, folder) if chat else 0
    with suppress(OSError), atomic_path(kept, shared=True) as partial:  # a check needs no folder that it may write to
        partial.write_text(json.dumps({"tokens": tokens, "turn": turn}), encoding="utf-8")
    return tokens, turn


def turn_tokens(tokenizer: Any, folder: ModelFolder) -> int:
    """Tokens that the chat template puts around a message, seen on a conversation of one and the turn that follows."""
    file, settings = folder.tokenizer / TEMPLATE, folder.tokenizer / SETTINGS
    known = read_json(settings, "policy.path") if settings.is_file() else {}
    template = file.read_text(encoding="utf-8") if file.is_file() else known.get("chat_template")
    if not isinstance(template, str):
        return USUAL_TURN
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    special = {name: known.get(name) or "" for name in ("bos_token", "eos_token")}
    try:
        text = (
            ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            .from_string(template)
            .render(messages=[{"role": "user", "content": "x"}], add_generation_prompt=True, **special)
        )
    except (TemplateError, TypeError):  # it calls what transformers alone provides
        return USUAL_TURN
    return _size(tokenizer, text) // 2  # around the message, and before the answer


def _size(tokenizer: Any, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def _key(texts: Sequence[str], folder: ModelFolder, *, chat: bool) -> str:
    files = [_state(folder.tokenizer / name) for name in (TOKENIZER, SETTINGS, TEMPLATE)]
    return sha256(json.dumps([files, chat, list(texts)]).encode()).hexdigest()


def _state(file: Path) -> list[Any] | None:
    """What changes with a file's content; reading it would take longer than the rest."""
    if not file.is_file():
        return None
    found = file.stat()
    return [str(file.resolve()), found.st_size, found.st_mtime_ns]
