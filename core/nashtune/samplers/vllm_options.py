"""Which arguments of `vllm.LLM` a spec may give: those that can name neither code nor files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nashtune.errors import nearest

TEXTS = ("attention_backend", "kv_cache_dtype", "quantization", "tokenizer_mode")
"""Options that take one of a few words; other texts would be models, files or classes to import."""
REFUSED = ("trust_remote_code",)
"""Switches that are not left to a file."""


def check_engine_options(options: Mapping[str, Any]) -> None:
    """Refuse an option that could have vLLM import a class, read another model or run a model's code.

    Raises:
        ValueError: there is one.
    """
    for name, value in options.items():
        if name in REFUSED:
            raise ValueError(f"engine_options.{name}: is not taken from a spec; start a vLLM server with what you need")
        word = isinstance(value, str) and name in TEXTS and value.replace("_", "").replace("-", "").isalnum()
        if not word and not isinstance(value, bool | int | float):
            raise ValueError(
                f"engine_options.{name}: takes a number or a switch here; a text could name code or files. Words are "
                f"read for {', '.join(TEXTS)}{nearest(name, TEXTS).partition(' (known')[0]}; for anything else start "
                "a vLLM server and name it in servers"
            )
