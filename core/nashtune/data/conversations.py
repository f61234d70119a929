"""A prompt and a completion as the one sequence of tokens that a reward model reads, in training and in judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from nashtune.data.specials import SpecialTokens
from nashtune.data.texts import messages_of
from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt

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
        rendering: "chat": the whole conversation through the chat template, without the marker that would open another
            turn; "plain": prompt, completion and EOS put together, behind what the tokenizer puts before a text, BOS
            at most once; "pair": two segments.
        path: The model, for messages.
        option: The option that chose the rendering, for messages.
        ends_at_eos: Whether the EOS that closes the last turn is the last token, so that the score is read there.
            ChatML puts a line break behind it; models from elsewhere have been trained with what their template gives.

    Raises:
        InputError: "chat" and the tokenizer has no chat template.
    """

    def __init__(
        self,
        tokenizer: Any,
        rendering: Rendering,
        path: str,
        option: str = "oracle.template",
        *,
        ends_at_eos: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self._rendering = rendering
        self._path = path
        self._option = option
        self._ends_at_eos = ends_at_eos and tokenizer.eos_token is not None
        self._specials = SpecialTokens(tokenizer)
        if rendering == "chat" and not tokenizer.chat_template:
            raise InputError(
                f"{option}: chat, but the tokenizer of {path} has no chat template; set {option}: plain "
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
            bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
            if bos is not None and ids[:2] == [bos, bos]:  # the text had one written at its beginning
                ids = ids[1:]
            return Tokens(ids if eos is None or ids[-1:] == [eos] else [*ids, eos])
        both = self.tokenizer(text, completion, verbose=False, return_token_type_ids=True)
        reads = "token_type_ids" in self.tokenizer.model_input_names
        return Tokens(list(both["input_ids"]), list(both["token_type_ids"]) if reads else None)

    def before(self, prompt: Prompt, completion: str) -> int:
        """Tokens of the input that stand before the completion: those that it shares with another completion's."""
        other = "y" if completion.lstrip().startswith("x") else "x"
        pairs = zip(self.encode(prompt, completion).ids, self.encode(prompt, other).ids, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def cuts_answer(self, tokens: Tokens, prompt: Prompt, completion: str, limit: int) -> bool:
        """Whether `tokens.last(limit)` would cut away the beginning of the completion, and not of the prompt alone.

        Args:
            tokens: Of prompt and completion, as `encode` gives them.
            prompt: The prompt.
            completion: The completion.
            limit: Most tokens, >= 1.
        """
        kept_from = len(tokens.ids) - limit + 1
        return kept_from > 1 and kept_from > self.before(prompt, completion)

    def ends_early(self, completion: str) -> bool:
        """Whether an EOS is written before the completion's end, where it would be read as one: under "plain"."""
        eos = self.tokenizer.eos_token
        return self._rendering == "plain" and eos is not None and eos in completion.removesuffix(eos)

    def written(self, prompt: Prompt, completion: str) -> bool:
        """Whether a special token is written in the text of the input."""
        return any(map(self._specials.found, (*(turn["content"] for turn in messages_of(prompt)), completion)))

    def _chat(self, messages: list[dict[str, str]], completion: str) -> list[int]:
        from jinja2 import TemplateError

        conversation = [*messages, {"role": "assistant", "content": completion}]
        marked = [{**turn, "content": self._specials.mark(turn["content"])} for turn in conversation]
        try:
            text = self.tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=False)
        except TemplateError as error:
            raise InputError(
                f"{self._option}: the chat template of {self._path} refuses a conversation: {error}"
            ) from error
        if self._ends_at_eos and text.rstrip().endswith(self.tokenizer.eos_token):
            text = text.rstrip()
        return self._specials.encode([text])[0]

    def _text(self, prompt: Prompt) -> str:
        messages: Sequence[dict[str, str]] = messages_of(prompt)
        if isinstance(prompt, str) or (len(messages) == 1 and messages[0]["role"] == "user"):
            return messages[0]["content"]
        raise InputError(
            f"{self._option}: {self._rendering} takes texts, and a prompt is a conversation of {len(messages)} "
            f"messages; use {self._option}: chat"
        )
