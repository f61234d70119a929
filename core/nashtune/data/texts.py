"""Prompts as messages or as one text, and templates filled with texts. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as a conversation: a text is one message of the user."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": message["role"], "content": message["content"]} for message in prompt]


def text_of(prompt: Prompt) -> str:
    """A prompt as one text: a lone message of the user as it is, longer conversations with `role:` before each turn."""
    messages = messages_of(prompt)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def key_of(prompt: Prompt) -> Any:
    """A prompt as something that a dictionary can hold."""
    return prompt if isinstance(prompt, str) else tuple((turn["role"], turn["content"]) for turn in prompt)


def check_template(template: str, names: Sequence[str], option: str) -> None:
    """Whether every text has its place in the template.

    Raises:
        InputError: a `{name}` is missing.
    """
    missing = [f"{{{name}}}" for name in names if f"{{{name}}}" not in template]
    if missing:
        raise InputError(
            f"{option}: the template has no {' and no '.join(missing)}; it must contain "
            f"{', '.join(f'{{{name}}}' for name in names)}"
        )


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with each `{name}` replaced, in one pass: braces within the texts, and others, stay as they are."""
    return re.sub("|".join(re.escape(f"{{{name}}}") for name in values), lambda m: values[m.group()[1:-1]], template)


def check_lengths(*columns: Sequence[Any]) -> int:
    """The common length of lists that belong together.

    Raises:
        ValueError: they differ.
    """
    if len(sizes := {len(column) for column in columns}) > 1:
        raise ValueError(f"lists of unequal lengths: {', '.join(str(len(column)) for column in columns)}")
    return sizes.pop()
