"""Checked rows become whole conversations, as a reward model reads them: prompt and completion in one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nashtune.data.lengths import Limits, fit_whole
from nashtune.data.messages import as_asked
from nashtune.data.rows import Example, Pair, Ranked, Row
from nashtune.data.tokenise import RowEncoder, TokenRow, last_text
from nashtune.errors import InputError

if TYPE_CHECKING:
    from nashtune.data.conversations import Conversations, Tokens

WORDS = "tokens of prompt and completion"


@dataclass(frozen=True)
class _Read:
    """A row and its texts, best first."""

    row: Pair | Ranked
    texts: tuple[Tokens, ...]

    @property
    def completions(self) -> tuple[str, ...]:
        return (self.row.chosen, self.row.rejected) if isinstance(self.row, Pair) else self.row.responses


class WholeEncoder(RowEncoder):
    """For losses that read scores: each completion with its prompt before it, of pairs or ranked lists.

    Args:
        conversations: Encodes them, as the oracle that scores will.
        limits: Lengths of a conversation, and what to do beyond them: one that is cut keeps its first token and its
            end, the completion whole.
        soft: Whether p_chosen goes into the rows.
    """

    def __init__(self, conversations: Conversations, limits: Limits, *, soft: bool) -> None:
        super().__init__(conversations.tokenizer, limits, soft=soft)
        self._conversations = conversations

    def encode(self, rows: Sequence[Row]) -> list[TokenRow]:
        """See `RowEncoder`."""
        reads = [read for row in rows if (read := self._read(row)) is not None]
        if self.unusable:
            return []
        kept = []
        for read in reads:
            longest = max(len(text.ids) for text in read.texts)
            fitted = fit_whole(read, longest, read.row.where, self.limits, WORDS, self._shorter, self.fitting)
            if fitted is not None:
                kept.append(_token_row(fitted, self.soft))
        return kept

    def _read(self, row: Row) -> _Read | None:
        assert not isinstance(row, Example)
        conversations, read = self._conversations, _Read(row, ())
        prompt = as_asked(row.prompt)
        try:
            texts = tuple(conversations.encode(prompt, text) for text in read.completions)
        except InputError as error:
            self.unusable.add(row.where, str(error))
            return None
        self.special_text += any(conversations.written(prompt, text) for text in read.completions)
        if any(map(conversations.ends_early, read.completions)):
            eos = conversations.tokenizer.eos_token
            self.unusable.add(
                row.where,
                f"an answer contains {eos} before its end, and no policy writes on behind it; cut or remove it",
            )
        elif len({tuple(text.ids) for text in texts}) < len(texts):
            self.unusable.add(row.where, "two answers are the same tokens once the template has trimmed them")
        return _Read(row, texts)

    def _shorter(self, read: _Read) -> _Read | None:
        limit = self.limits.max_length
        for text, completion in zip(read.texts, read.completions, strict=True):
            if self._conversations.cuts_answer(text, as_asked(read.row.prompt), completion, limit):
                return None
        return _Read(read.row, tuple(text.last(limit) for text in read.texts))


def _token_row(read: _Read, soft: bool) -> TokenRow:
    row = read.row
    return TokenRow(
        prompt_ids=(),
        completions=tuple(tuple(text.ids) for text in read.texts),
        p_chosen=row.p_chosen if isinstance(row, Pair) and soft else None,
        margin=row.margin if isinstance(row, Pair) else None,
        levels=row.levels if isinstance(row, Ranked) else None,
        where=row.where,
        prompt_text=last_text(row.prompt),
    )
