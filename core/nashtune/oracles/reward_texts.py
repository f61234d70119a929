"""A prompt and a completion as the one sequence of tokens that a reward model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nashtune.data.specials import SpecialTokens
from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt
from nashtune.oracles.texts import messages_of

Rendering = Literal["chat", "plain", "pair"]


@dataclass(frozen=True)
class Tokens:
    """One input.

    Args:
        ids: Token ids.
        segments: Segment of each token, where the model reads two texts.
    """

    ids: list[int]
    segments: list[int] | None = None

    def last(self, limit: int) -> Tokens:
        """At most `limit` tokens: the first one, which may be BOS or CLS, and the last ones, which are the answer."""
        if len(self.ids) <= limit:
            return self
        cut = len(self.ids) - limit + 1
        return Tokens(
            [self.ids[0], *self.ids[cut:]][-limit:],
            None if self.segments is None else [self.segments[0], *self.segments[cut:]][-limit:],
        )


class Conversations:
    """Encodes conversations for one reward model.

    Args:
        tokenizer: The reward model's own; it need not be the policy's.
        rendering: "chat", "plain" or "pair".
        path: The model, for messages.

    Raises:
        InputError: "chat" and the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any, rendering: Rendering, path: str) -> None:
        self.tokenizer = tokenizer
        self._rendering = rendering
        self._path = path
        self._specials = SpecialTokens(tokenizer)
        if rendering == "chat" and not tokenizer.chat_template:
            raise InputError(
                f"oracle.template: chat, but the tokenizer of {path} has no chat template; set oracle.template: plain "
                "(or pair, for an encoder), or add the chat_template.jinja that it was trained with"
            )

    def encode(self, prompt: Prompt, completion: str) -> Tokens:
        """Token ids of one input.

        Raises:
            InputError: the prompt is a conversation and the template takes texts, or the chat template refuses it.
        """
        if self._rendering == "chat":
            return Tokens(self._chat(messages_of(prompt), completion))
        text = self._text(prompt)
        if self._rendering == "plain":
            ids = list(self.tokenizer(text + completion, verbose=False)["input_ids"])
            end = self.tokenizer.eos_token_id
            return Tokens(ids if end is None or ids[-1:] == [end] else [*ids, end])
        both = self.tokenizer(text, completion, verbose=False, return_token_type_ids=True)
        reads = "token_type_ids" in self.tokenizer.model_input_names
        return Tokens(list(both["input_ids"]), list(both["token_type_ids"]) if reads else None)

    def _chat(self, messages: list[dict[str, str]], completion: str) -> list[int]:
        from jinja2 import TemplateError

        conversation = [*messages, {"role": "assistant", "content": completion}]
        marked = [{**turn, "content": self._specials.mark(turn["content"])} for turn in conversation]
        try:
            text = self.tokenizer.apply_chat_template(marked, tokenize=False)
        except TemplateError as error:
            raise InputError(f"oracle: the chat template of {self._path} refuses a conversation: {error}") from error
        return self._specials.encode([text])[0]

    def _text(self, prompt: Prompt) -> str:
        messages: Sequence[dict[str, str]] = messages_of(prompt)
        if isinstance(prompt, str) or (len(messages) == 1 and messages[0]["role"] == "user"):
            return messages[0]["content"]
        raise InputError(
            f"oracle.template: {self._rendering} takes texts, and a prompt is a conversation of {len(messages)} "
            "messages; use oracle.template: chat"
        )
