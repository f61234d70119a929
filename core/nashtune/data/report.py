"""What became of the rows: read, used, dropped, shortened, and what was found on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Lengths:
    """Token counts of many texts."""

    shortest: int
    median: int
    longest: int
    total: int

    @classmethod
    def of(cls, counts: Iterable[int]) -> Lengths:
        """Of these counts, at least one."""
        return cls.of_histogram(Counter(counts))

    @classmethod
    def of_histogram(cls, texts: Mapping[int, int]) -> Lengths:
        """Of so many texts of each length, at least one: as small as there are lengths, however many texts."""
        lengths = sorted(texts)
        middle = sum(texts.values()) // 2
        up_to = accumulate(texts[length] for length in lengths)
        median = next(length for length, number in zip(lengths, up_to, strict=True) if number > middle)
        return cls(lengths[0], median, lengths[-1], sum(length * number for length, number in texts.items()))


@dataclass(frozen=True, kw_only=True)
class TokenisationReport:
    """Counts of one split.

    Args:
        split: train, validation or test.
        source: Where the rows come from.
        kind: What a used row is: "pairs", "examples", "ranked", "comparisons" or "prompts".
        read: Rows read.
        used: Rows that are trained or measured on, or prompts that completions are drawn for. A comparison is a pair in
            one of its two orders.
        dropped_overflow: Left out because prompt and completion are longer than `max_length`, or the prompt than its
            limit.
        dropped_completion: Left out although prompts may be shortened, because the completion alone does not fit.
        truncated: Prompts that lost their beginning. Completions are never cut.
        duplicates: Pairs or examples that repeat an earlier one exactly, and are used all the same; in a game rows
            whose prompt an earlier one has, which are left out.
        special_text: Rows whose own text contains special tokens.
        eos_written: Rows with EOS written at the end of a completion; it was not doubled.
        trimmed: Rows with a completion that the chat template changed, for example by cutting spaces at its ends.
        desirable: Desirable ones among the examples.
        prompt_tokens: Lengths of prompts; None where each conversation is one text.
        completion_tokens: Lengths of completions, EOS included, or of whole conversations; None for prompts.
        prompt_start: The first tokens of the first prompt or conversation, as text.
        completion_end: The last tokens of the first completion, as text; None for prompts.
        fingerprint: sha256 of the token ids and labels.
        notes: What else a user should know, in sentences.
    """

    split: str
    source: str
    kind: str
    read: int
    used: int
    dropped_overflow: int
    dropped_completion: int
    truncated: int
    duplicates: int
    special_text: int
    eos_written: int
    trimmed: int
    desirable: int | None
    prompt_tokens: Lengths | None
    completion_tokens: Lengths | None
    prompt_start: str
    completion_end: str | None
    fingerprint: str
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TokenisationReport:
        """What `as_dict` gave.

        Raises:
            TypeError: these are not its values.
        """
        lengths = {
            name: Lengths(**values[name]) if values.get(name) is not None else None
            for name in ("prompt_tokens", "completion_tokens")
        }
        return cls(**{**values, **lengths, "notes": tuple(values["notes"])})

    def table(self) -> Table:
        """For the terminal; lines that say nothing (zero counts) are left out."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("", "", title=f"data: {self.split}", show_header=False, title_justify="left")
        table.add_row("source", escape(self.source))
        table.add_row(self.kind, f"{self.used} used of {self.read} rows read")
        if self.desirable is not None:
            table.add_row("desirable", f"{self.desirable}, undesirable {self.used - self.desirable}")
        what = "completion tokens" if self.prompt_tokens is not None else "tokens of a whole text"
        for label, lengths in (("prompt tokens", self.prompt_tokens), (what, self.completion_tokens)):
            if lengths is not None:
                table.add_row(
                    label, f"{lengths.shortest} to {lengths.longest}, median {lengths.median}, total {lengths.total}"
                )
        table.add_row("prompt begins", escape(repr(self.prompt_start)))
        if self.completion_end is not None:
            table.add_row("completion ends", escape(repr(self.completion_end)))
        counts = {
            "dropped: too long": self.dropped_overflow,
            "dropped: completion too long": self.dropped_completion,
            "prompts truncated": self.truncated,
            "special tokens in text": self.special_text,
            "EOS written in text": self.eos_written,
            "changed by template": self.trimmed,
        }
        for label, count in counts.items():
            if count:
                table.add_row(label, str(count))
        for note in self.notes:
            table.add_row("note", escape(note))
        return table
