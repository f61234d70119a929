"""Prompts and completions as text or chat: the many ways to write them become one. Importing this imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from nashtune.errors import nearest

ROLES = ("system", "developer", "user", "assistant", "tool")


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    content: str


Prompt = str | tuple[Message, ...]


def as_asked(prompt: Prompt) -> str | list[dict[str, str]]:
    """A prompt as oracles take it: a text, or a list of {role, content}."""
    return prompt if isinstance(prompt, str) else [message._asdict() for message in prompt]


class RowError(ValueError):
    """What is wrong with a row; the loader adds where."""


class NoPrompt(RowError):
    """A row without the prompt that it needs."""


def parse_prompt(value: Any) -> Prompt:
    """A prompt: a text, or messages that end with somebody else than the assistant.

    Raises:
        RowError: neither of these, or empty.
    """
    if isinstance(value, str):
        if not value.strip():
            raise RowError("'prompt' is empty; a completion needs something to complete")
        return value
    messages = parse_messages(value, "prompt")
    if messages[-1].role == "assistant":
        raise RowError(
            "'prompt' ends with an assistant message; the answers belong into 'chosen', 'rejected' or 'completion'"
        )
    return messages


def parse_completion(value: Any, column: str, prompt: Prompt | None) -> tuple[Prompt, str]:
    """A completion with its prompt.

    Args:
        value: A text, a list of one assistant message, or the whole conversation: the prompt's messages and then the
            answer.
        column: Its name, for messages.
        prompt: The row's prompt; None when the prompt is only within the conversation.

    Returns:
        The prompt (as the conversation gives it, when it does) and the assistant's text.

    Raises:
        RowError: neither of these, empty, or a conversation that does not continue the prompt.
    """
    if isinstance(value, str):
        if prompt is None:
            raise NoPrompt(
                f"no 'prompt', and '{column}' is a text; add 'prompt', or give conversations that begin with it"
            )
        return prompt, _not_empty(value, column)
    *before, answer = parse_messages(value, column)
    if answer.role != "assistant":
        raise RowError(f"the last message of '{column}' is from '{answer.role}'; it must be the assistant's answer")
    text = _not_empty(answer.content, column)
    if not before:
        if prompt is None:
            raise NoPrompt(f"no 'prompt', and '{column}' has only the answer; add 'prompt'")
        return prompt, text
    given = parse_prompt([message._asdict() for message in before])
    if prompt is not None and not _same(prompt, before):
        raise RowError(
            f"the conversation in '{column}' does not begin with 'prompt'; leave one of them out or make them agree"
        )
    return given, text


def _same(prompt: Prompt, before: Sequence[Message]) -> bool:
    """Whether a conversation begins with the prompt: the same messages, or a last user message with its text."""
    if isinstance(prompt, str):
        return before[-1].role == "user" and before[-1].content == prompt
    return tuple(before) == prompt


def _not_empty(text: str, column: str) -> str:
    if not text.strip():
        raise RowError(f"'{column}' is empty; an empty answer has nothing to learn from. Remove the row")
    return text


def parse_messages(value: Any, column: str) -> tuple[Message, ...]:
    """A list of {role, content}.

    Raises:
        RowError: anything else, an unknown role, or further keys that would not be read.
    """
    if not isinstance(value, list | tuple):
        one = "; put the message into a list" if isinstance(value, dict) and "content" in value else ""
        raise RowError(f"'{column}' must be a text or a list of messages, found {shown(value)}{one}")
    if not value:
        raise RowError(f"'{column}' is an empty list; it must be a text or at least one message")
    return tuple(_message(item, f"message {i} of '{column}'") for i, item in enumerate(value, start=1))


def _message(item: Any, what: str) -> Message:
    if not isinstance(item, dict):
        raise RowError(f"{what} must be {{role, content}}, found {shown(item)}")
    keys = {key for key, value in item.items() if value is not None}
    if missing := {"role", "content"} - keys:
        hint = "; 'from' and 'value' are another convention, rename them" if {"from", "value"} & keys else ""
        raise RowError(
            f"{what} has no {' and no '.join(sorted(missing))}; found {', '.join(sorted(keys)) or 'nothing'}{hint}"
        )
    if extra := keys - {"role", "content"}:
        raise RowError(
            f"{what} has {', '.join(map(repr, sorted(extra)))}, which is not read; only role and content are. Remove it"
        )
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise RowError(f"{what} has the role {shown(role)}{nearest(str(role), ROLES)}")
    if not isinstance(content, str):
        parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
        hint = (
            "; parts are not read: join their texts into one, and leave out rows with images or sound" if parts else ""
        )
        raise RowError(f"the content of {what} must be a text, found {shown(content)}{hint}")
    return Message(role, content)


def shown(value: Any) -> str:
    """A value as a short piece of JSON for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
