"""Checked rows become token ids, a few at a time; what is too long is refused, dropped, or loses its beginning."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from nashtune.data.bad import BadRows
from nashtune.data.lengths import Fitting, Limits
from nashtune.data.messages import Prompt
from nashtune.data.report import Lengths, TokenisationReport
from nashtune.data.rows import Row, RowSet
from nashtune.errors import InputError

FEW = 12  # tokens shown in the report
AT_ONCE = 128  # rows that are encoded in one call: enough for the tokenizer's own threads, few enough for long rows


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """A row as token ids.

    Args:
        prompt_ids: The prompt, BOS included where there is one; empty where each completion is a whole conversation.
        completions: (chosen, rejected) of a pair, (completion,) of an example, all of a ranked list, best first; each
            ends with EOS. Of a comparison the two answer tokens, the right one first.
        p_chosen: Probability that chosen is better, when labels are soft.
        margin: By how much chosen should win, where the loss reads it.
        desirable: Label of an example.
        levels: Of each completion of a ranked list, 0 for the best and the same for equal scores; None for other kinds.
        where: `file:line`.
        prompt_text: The prompt's text, or its last message's.
    """

    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    p_chosen: float | None = None
    margin: float | None = None
    desirable: bool | None = None
    levels: tuple[int, ...] | None = None
    where: str
    prompt_text: str

    @property
    def longest(self) -> int:
        """Tokens of the longer completion."""
        return max(map(len, self.completions))


class RowEncoder(ABC):
    """Makes token rows of checked rows, and counts what a report says of them.

    Args:
        tokenizer: A Hugging Face tokenizer.
        limits: Lengths, and what to do beyond them.
        soft: Whether p_chosen goes into the rows.
    """

    def __init__(self, tokenizer: Any, limits: Limits, *, soft: bool) -> None:
        self.tokenizer = tokenizer
        self.limits = limits
        self.soft = soft
        self.special_text = 0  # see `TokenisationReport`
        self.eos_written = 0
        self.trimmed = 0
        self.fitting = Fitting()
        self.unrendered = BadRows()  # rows that do not fit the template
        self.unusable = BadRows()  # rows whose tokens cannot be trained on

    @abstractmethod
    def encode(self, rows: Sequence[Row]) -> list[TokenRow]:
        """Token rows of these, without those that do not fit. Bad rows are noted, and refused by `refuse`."""

    def refuse(self) -> None:
        """To be called after the last row.

        Raises:
            InputError: some rows are bad; of the first way in which any are.
        """
        for bad in (self.unrendered, self.unusable, self.fitting.bad):
            bad.refuse()

    def notes(self, longest_prompt: int, longest_completion: int) -> list[str]:
        """What else a user should know of rows with such lengths, in sentences."""
        return []


def tokenise(
    rows: Iterable[Row],
    found: RowSet,
    encoder: RowEncoder,
    keep: Callable[[Sequence[TokenRow]], Any],
    *,
    split: str = "train",
) -> TokenisationReport:
    """Token ids of every row that fits, handed on a few at a time.

    Args:
        rows: Checked rows, which may be read while they are gone through.
        found: What is known of them when all have been read.
        encoder: Encodes them.
        keep: Takes the token rows.
        split: Its name, for the report.

    Raises:
        InputError: a row that does not fit the template, becomes empty or identical as tokens, is too long while
            overflow is "error"; or no row is left.
    """
    tally = _Tally()
    for some in _chunks(rows):
        kept = encoder.encode(some)
        for row in kept:
            tally.add(row)
        keep(kept)
    encoder.refuse()
    if tally.first is None:
        raise InputError(
            f"{found.source}: none of the {found.training_rows} {found.kind} fits data.max_length "
            f"{encoder.limits.max_length}; raise it"
        )
    return _report(tally, tally.first, found, encoder, split)


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    stream = iter(rows)
    while some := list(islice(stream, AT_ONCE)):
        yield some


class _Tally:
    """What a report says of token rows."""

    def __init__(self) -> None:
        self.first: TokenRow | None = None
        self.used = 0
        self.desirable = 0
        self.prompts: Counter[int] = Counter()
        self.completions: Counter[int] = Counter()
        self.fingerprint = Fingerprint()

    def add(self, row: TokenRow) -> None:
        self.first = self.first or row
        self.used += 1
        self.desirable += bool(row.desirable)
        self.prompts[len(row.prompt_ids)] += 1
        self.completions.update(map(len, row.completions))
        self.fingerprint.add(row)


def _report(tally: _Tally, first: TokenRow, found: RowSet, encoder: RowEncoder, split: str) -> TokenisationReport:
    tokenizer, counts = encoder.tokenizer, encoder.fitting.counts
    return TokenisationReport(
        split=split,
        source=found.source,
        kind=found.kind,
        read=found.read,
        used=tally.used,
        dropped_overflow=counts["overflow"],
        dropped_completion=counts["completion"],
        truncated=counts["truncated"],
        duplicates=found.duplicates,
        special_text=encoder.special_text,
        eos_written=encoder.eos_written,
        trimmed=encoder.trimmed,
        desirable=tally.desirable if first.desirable is not None else None,
        prompt_tokens=Lengths.of_histogram(tally.prompts) if first.prompt_ids else None,
        completion_tokens=Lengths.of_histogram(tally.completions),
        prompt_start=str(tokenizer.decode(list((first.prompt_ids or first.completions[0])[:FEW]))),
        completion_end=str(tokenizer.decode(list(first.completions[0][-FEW:]))),
        fingerprint=tally.fingerprint.hexdigest(),
        notes=(*found.notes(), *encoder.notes(max(tally.prompts), max(tally.completions))),
    )


def last_text(prompt: Prompt) -> str:
    """A prompt's text, or that of its last message."""
    return prompt if isinstance(prompt, str) else prompt[-1].content


class Fingerprint:
    """sha256 of token ids and labels, in order: the same exactly when training would see the same data."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, row: TokenRow) -> None:
        """The next row."""
        for ids in (row.prompt_ids, *row.completions):
            self._digest.update(np.asarray([len(ids), *ids], dtype="<i8").tobytes())
        margin = () if row.margin is None else (row.margin,)
        tied = () if row.levels is None or len(set(row.levels)) == len(row.levels) else (row.levels,)
        self._digest.update(repr((row.p_chosen, row.desirable, *margin, *tied)).encode())

    def hexdigest(self) -> str:
        """Of the rows so far."""
        return self._digest.hexdigest()


def fingerprint(rows: Iterable[TokenRow]) -> str:
    """The `Fingerprint` of all these rows."""
    whole = Fingerprint()
    for row in rows:
        whole.add(row)
    return whole.hexdigest()
