"""A prompt and two answers as one question, and which token answers it: what a preference model reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nashtune.data.lengths import Limits, fit_whole
from nashtune.data.messages import RowError, as_asked
from nashtune.data.rows import Pair, Row
from nashtune.data.template import TemplateName, make_template
from nashtune.data.texts import fill, text_of
from nashtune.data.tokenise import RowEncoder, TokenRow, last_text
from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt

PLACES = ("prompt", "first", "second")
QUESTION = "[CONTEXT] {prompt} [RESPONSE A] {first} [RESPONSE B] {second} \n"
ANSWERS = ("A", "B")
WORDS = "tokens of question and answer"


class Questions:
    """Encodes questions for one preference model: the same ids in training and in judging.

    Args:
        tokenizer: The preference model's own; it need not be the policy's.
        template: "chat": the question is a message of the user, and the answer token is the first of the assistant's
            turn; "plain": the token after the question.
        question: The text, with {prompt}, {first} and {second}.
        answers: What says that the first answer is better, and what says that the second is; one token each.
        option: What to name in messages about the answer tokens.

    Raises:
        InputError: the tokenizer lacks what the template needs, or an answer is not exactly one token.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: TemplateName,
        *,
        question: str = QUESTION,
        answers: Sequence[str] = ANSWERS,
        option: str,
    ) -> None:
        self.answers = answer_ids(tokenizer, answers, option)
        self.tokenizer = tokenizer
        self._question = question
        self._encoder = make_template(template, tokenizer)
        # In a chat the template marks special tokens in the whole question; in plain text only what was sampled or
        # asked is marked, and special tokens of the template are meant.
        self._mark = self._encoder.specials.mark if template == "plain" else str

    def encode(self, sides: Sequence[tuple[Prompt, str, str]]) -> list[list[int]]:
        """Token ids of each (prompt, first, second), up to where the answer token stands.

        A prompt of several messages is written with `role:` before each turn.

        Raises:
            RowError: the chat template refuses a question.
        """
        rendered = []
        for prompt, first, second in sides:
            texts = dict(zip(PLACES, map(self._mark, (text_of(prompt), first, second)), strict=True))
            rendered.append(self._encoder.render(fill(self._question, texts), ()))
        return self._encoder.encode_prompts(rendered)

    def written(self, text: str) -> bool:
        """Whether a special token is written in a text."""
        return self._encoder.specials.found(text)


class ComparisonEncoder(RowEncoder):
    """For preference models: two questions for each pair, chosen shown first, and chosen shown second.

    Both orders are trained, so that the position of an answer says nothing of its quality. A pair is kept or left out
    as a whole.

    Args:
        questions: Encodes them, as the oracle that compares will.
        limits: Lengths of a question with its answer token, and what to do beyond them; nothing is cut.
        soft: Whether p_chosen goes into the rows.
    """

    def __init__(self, questions: Questions, limits: Limits, *, soft: bool) -> None:
        super().__init__(questions.tokenizer, limits, soft=soft)
        self._questions = questions

    def encode(self, rows: Sequence[Row]) -> list[TokenRow]:
        """See `RowEncoder`."""
        kept: list[TokenRow] = []
        for row in rows:
            assert isinstance(row, Pair)
            prompt = as_asked(row.prompt)
            self.special_text += any(map(self._questions.written, (text_of(prompt), row.chosen, row.rejected)))
            try:
                both = self._orders(row)
            except RowError as error:
                self.unrendered.add(row.where, str(error))
                continue
            longest = max(len(one.prompt_ids) for one in both) + 1
            kept += fit_whole(both, longest, row.where, self.limits, WORDS, None, self.fitting) or ()
        return kept

    def _orders(self, row: Pair) -> tuple[TokenRow, ...]:
        says_first, says_second = self._questions.answers
        prompt = as_asked(row.prompt)
        ids = self._questions.encode([(prompt, row.chosen, row.rejected), (prompt, row.rejected, row.chosen)])
        orders = zip(ids, ((says_first, says_second), (says_second, says_first)), strict=True)
        return tuple(
            TokenRow(
                prompt_ids=tuple(question),
                completions=((right,), (wrong,)),
                p_chosen=row.p_chosen if self.soft else None,
                where=row.where,
                prompt_text=last_text(row.prompt),
            )
            for question, (right, wrong) in orders
        )


def answer_ids(tokenizer: Any, answers: Sequence[str], option: str) -> tuple[int, int]:
    """Ids of the two answer tokens as they stand at the beginning of a turn.

    Args:
        tokenizer: A Hugging Face tokenizer.
        answers: For the first answer and for the second.
        option: What to name in messages.

    Raises:
        InputError: one is not exactly one token, or both are the same.
    """
    if len(answers) != 2:
        raise InputError(f"{option}: {len(answers)} texts; give two, for the first answer and for the second")
    found = []
    for text in answers:
        # SentencePiece tokenizers put a space before the first word: encode behind a newline, then take it away
        newline, whole, alone = tokenizer(["\n", f"\n{text}", text], add_special_tokens=False)["input_ids"]
        ids = whole[len(newline) :] if whole[: len(newline)] == newline else alone
        if len(ids) != 1:
            raise InputError(
                f"{option}: {text!r} is {len(ids)} tokens in this tokenizer; give a text that is one, such as a "
                "single letter"
            )
        found.append(int(ids[0]))
    if found[0] == found[1]:
        raise InputError(f"{option}: {answers[0]!r} and {answers[1]!r} are the same token")
    return found[0], found[1]
