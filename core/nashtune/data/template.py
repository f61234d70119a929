"""How a prompt and its completions become token ids: through the model's chat template, or as plain text.

Prompt and completions are encoded apart and their ids are put together, so no token spans the border and the prompt
has the same ids in training and in sampling. Every completion ends with exactly one EOS. The prompt has at most one
BOS.

Special tokens that a row's own text contains: under `chat` they stay text (see `specials`), under `plain` they are
what the tokenizer makes of them, so that prompts may be rendered beforehand. An EOS written at the end of a completion
is the one that is added anyway; one in the middle is an error (under `chat` there cannot be one). Rows with such text
are counted in the report.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nashtune.data.messages import Message, Prompt, RowError
from nashtune.data.specials import SpecialTokens
from nashtune.errors import InputError

TemplateName = Literal["chat", "plain"]
PROBE = "xnashtuneprobex"  # stands in for an answer, to see what a template writes after one


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A row's texts, ready to be encoded.

    Args:
        prompt: With everything the template puts before the answer.
        completions: What the model has to write.
        special: Whether the row's own text contains special tokens.
        eos_written: Whether a completion had EOS at its end as text; it was taken away.
        trimmed: Whether the template changed a completion's text, for example by cutting spaces at its ends.
    """

    prompt: str
    completions: tuple[str, ...]
    special: bool
    eos_written: bool
    trimmed: bool


class Template(ABC):
    """Renders rows and encodes them.

    Args:
        tokenizer: A Hugging Face tokenizer with an EOS token.

    Raises:
        InputError: the tokenizer lacks what the template needs.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token is None or tokenizer.eos_token_id is None:
            raise InputError(
                "policy.path: the tokenizer has no eos_token, so a completion could not end; set it in the "
                "tokenizer_config.json of the model folder"
            )
        self.tokenizer = tokenizer
        self.eos: int = tokenizer.eos_token_id
        self.specials = SpecialTokens(tokenizer)

    @abstractmethod
    def render(self, prompt: Prompt, completions: Sequence[str]) -> Rendered:
        """The texts of a row.

        Raises:
            RowError: the row does not fit the template.
        """

    def encode_prompts(self, rendered: Sequence[Rendered]) -> list[list[int]]:
        """Token ids of the prompts."""
        return self.specials.encode([row.prompt for row in rendered])

    def encode_completions(self, rendered: Sequence[Rendered]) -> list[list[list[int]]]:
        """Token ids of each row's completions, EOS at the end."""
        flat = iter(self.specials.encode([text for row in rendered for text in row.completions]))
        return [[self._end(next(flat)) for _ in row.completions] for row in rendered]

    def _end(self, ids: list[int]) -> list[int]:
        return ids if ids and ids[-1] == self.eos else [*ids, self.eos]

    def without_eos(self, text: str) -> str:
        """A completion without the EOS tokens written at its end.

        Raises:
            RowError: nothing is left.
        """
        eos = self.tokenizer.eos_token
        while (stripped := text.rstrip()).endswith(eos):
            text = stripped.removesuffix(eos)
        if not text.strip():
            raise RowError(
                f"the completion is nothing but {eos}; an empty answer has nothing to learn from. Remove the row"
            )
        return text


class PlainTemplate(Template):
    """Texts as they are: BOS where the tokenizer adds one, prompt, completion, EOS.

    Nothing is put between prompt and completion; a space or newline belongs into one of them.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        bare, framed = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (False, True))
        start = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
        self._before: list[int] = framed[:start]

    def render(self, prompt: Prompt, completions: Sequence[str]) -> Rendered:
        """The texts of a row.

        Raises:
            RowError: the prompt is a chat.
        """
        if not isinstance(prompt, str):
            raise RowError(
                "the prompt is a list of messages, and data.template: plain takes texts; use data.template: chat"
            )
        texts = tuple(self.without_eos(text) for text in completions)
        return Rendered(
            prompt=prompt,
            completions=texts,
            special=any(map(self.specials.found, (prompt, *completions))),
            eos_written=texts != tuple(completions),
            trimmed=False,
        )

    def encode_prompts(self, rendered: Sequence[Rendered]) -> list[list[int]]:
        """Token ids of the prompts behind what the tokenizer puts before a text; a written BOS is not doubled."""
        before = self._before
        prompts = super().encode_prompts(rendered)
        return [ids if before and ids[: len(before)] == before else [*before, *ids] for ids in prompts]


class ChatTemplate(Template):
    """The tokenizer's chat template.

    The prompt is rendered with the generation prompt. A completion is what the template adds to that when the
    assistant's turn is there, up to the end-of-turn token; what follows it (a newline, usually) the model never has to
    write.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        if not tokenizer.chat_template:
            raise InputError(
                "policy.path: the tokenizer has no chat template. For a base model use data.template: plain; for a "
                "chat model put the chat_template.jinja of its repository into the model folder"
            )
        self._tail: str | None = None  # what the template writes after an answer
        self._end_of_turn = ""  # the part of it that the model has to write

    def render(self, prompt: Prompt, completions: Sequence[str]) -> Rendered:
        """The texts of a row.

        Raises:
            RowError: the template refuses the conversation, or rewrites the prompt when the answer is there.
        """
        given = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        chat = [{"role": m.role, "content": self.specials.mark(m.content)} for m in given]
        start = self._apply(chat, add_generation_prompt=True)
        if self._tail is None:
            self._tail = self._find_tail(chat)
            cut = self.specials.first_end(self._tail)
            self._end_of_turn = self._tail.rstrip() if cut is None else self._tail[:cut]
        texts = tuple(self.without_eos(text) for text in completions)
        marked = [self.specials.mark(text) for text in texts]
        answers = [self._answer(chat, start, text, self._tail) for text in marked]
        return Rendered(
            prompt=start,
            completions=tuple(answer + self._end_of_turn for answer in answers),
            special=any(map(self.specials.found, (*(m.content for m in given), *completions))),
            eos_written=texts != tuple(completions),
            trimmed=any(not answer.endswith(text) for answer, text in zip(answers, marked, strict=True)),
        )

    def _answer(self, chat: list[dict[str, str]], start: str, text: str, tail: str) -> str:
        """What the template makes of the answer's text, without the tail."""
        whole = self._apply([*chat, {"role": "assistant", "content": text}], add_generation_prompt=False)
        if not whole.startswith(start):
            raise RowError(
                "the chat template rewrites the earlier turns when the answer is added, so the prompt in training "
                "would not be the one in sampling; use a template that only appends, or data.template: plain with "
                "rendered prompts"
            )
        turn = whole[len(start) :]
        if not turn.endswith(tail):
            raise RowError(f"the chat template ends this answer with {turn[-20:]!r} and other answers with {tail!r}")
        return turn[: len(turn) - len(tail)]

    def _find_tail(self, chat: list[dict[str, str]]) -> str:
        """What the template writes after an answer."""
        whole = self._apply([*chat, {"role": "assistant", "content": PROBE}], add_generation_prompt=False)
        if PROBE not in whole:
            raise RowError("the chat template does not show the assistant's answer")
        return whole[whole.rindex(PROBE) + len(PROBE) :]

    def _apply(self, chat: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=add_generation_prompt)
        except TemplateError as error:
            raise RowError(f"the chat template refuses this conversation: {error}") from error
        return str(text)


def make_template(name: TemplateName, tokenizer: Any) -> Template:
    """The template of that name.

    Raises:
        InputError: the tokenizer lacks what it needs.
    """
    return ChatTemplate(tokenizer) if name == "chat" else PlainTemplate(tokenizer)
