"""Checked rows become whole conversations, as a reward model reads them: prompt and completion in one text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nashtune.data.lengths import Limits, fit_whole
from nashtune.data.messages import as_asked
from nashtune.data.report import TokenisationReport
from nashtune.data.rows import Example, Pair, Ranked, RowSet, refuse_rows
from nashtune.data.tokenise import TokenRow, last_text, report_of
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


def tokenise_whole(
    found: RowSet, conversations: Conversations, limits: Limits, *, soft: bool, split: str = "train"
) -> tuple[list[TokenRow], TokenisationReport]:
    """Token ids of every pair or ranked list that fits, each completion with its prompt before it.

    Args:
        found: Checked rows.
        conversations: Encodes them, as the oracle that scores will.
        limits: Lengths of a conversation, and what to do beyond them: one that is cut keeps its first token and its
            end, the completion whole.
        soft: Whether p_chosen goes into the rows.
        split: Its name, for the report.

    Raises:
        InputError: a row that does not fit the template, whose answers are the same tokens or hold an EOS before their
            end, or that is too long while overflow is "error"; or when no row is left.
    """

    def shorter(read: _Read) -> _Read | None:
        for text, completion in zip(read.texts, read.completions, strict=True):
            if conversations.cuts_answer(text, as_asked(read.row.prompt), completion, limits.max_length):
                return None
        return _Read(read.row, tuple(text.last(limits.max_length) for text in read.texts))

    reads = list(_read(found, conversations))
    sized = [(read, max(len(text.ids) for text in read.texts), read.row.where) for read in reads]
    kept, counts = fit_whole(sized, limits, WORDS, shorter)
    rows = [_token_row(read, soft) for read in kept]
    written = [any(conversations.written(as_asked(r.row.prompt), text) for text in r.completions) for r in reads]
    return rows, report_of(rows, counts, found, limits, conversations.tokenizer, split=split, special_text=sum(written))


def _read(found: RowSet, conversations: Conversations) -> Iterator[_Read]:
    bad: list[tuple[str, str]] = []
    for row in found.rows:
        assert not isinstance(row, Example)
        read = _Read(row, ())
        try:
            texts = tuple(conversations.encode(as_asked(row.prompt), text) for text in read.completions)
        except InputError as error:
            bad.append((row.where, str(error)))
            continue
        if any(map(conversations.ends_early, read.completions)):
            eos = conversations.tokenizer.eos_token
            bad.append(
                (
                    row.where,
                    f"an answer contains {eos} before its end, and no policy writes on behind it; cut or remove it",
                )
            )
        elif len({tuple(text.ids) for text in texts}) < len(texts):
            bad.append((row.where, "two answers are the same tokens once the template has trimmed them"))
        yield _Read(row, texts)
    refuse_rows(bad)


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
