"""A split of a run is read: its rows become token ids, or, for a game, its prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, cast

from nashtune.data.apart import ApartEncoder
from nashtune.data.comparisons import ComparisonEncoder, Questions
from nashtune.data.conversations import Conversations
from nashtune.data.lengths import Limits
from nashtune.data.prompt_tokens import tokenise_prompts
from nashtune.data.prompts import PromptRow, read_prompts
from nashtune.data.report import TokenisationReport
from nashtune.data.row_cache import kept_rows, tokenizer_digest
from nashtune.data.row_file import TokenRows
from nashtune.data.rows import Labels, RankedPairs, RowSet, stream_rows
from nashtune.data.serve import DataKind
from nashtune.data.sources import source_digest, source_format
from nashtune.data.template import Template, TemplateName, make_template
from nashtune.data.tokenise import RowEncoder, TokenRow, tokenise
from nashtune.data.whole import WholeEncoder
from nashtune.interfaces.batch import RowKind
from nashtune.terminal import with_bar


@dataclass(frozen=True, kw_only=True)
class SplitReader:
    """Reads, checks and tokenises a source: everything that its token rows depend on beside the source itself.

    Args:
        tokenizer: The policy's.
        kind: What rows are read as.
        reads: What the loss reads; for "scores" prompt and completion are one text.
        uses_margin: Whether the loss reads the column `margin`.
        completion_room: With "prompts", most tokens that the sampler draws behind one.
        template: `data.template`.
        limits: Lengths, and what to do beyond them.
        labels: `data.labels`.
        ranked_pairs: `data.ranked_pairs`.
        limit: `data.limit`, in rows; None for all.

    Raises:
        InputError: the tokenizer cannot render the template, or not ask the questions of a comparison.
    """

    tokenizer: Any
    kind: DataKind
    reads: Literal["logprobs", "scores"]
    uses_margin: bool
    completion_room: int
    template: TemplateName
    limits: Limits
    labels: Labels
    ranked_pairs: RankedPairs
    limit: int | None

    def __post_init__(self) -> None:
        self._template()
        if self.kind == "comparisons":
            self._questions()

    def prompts(self, source: str, split: str) -> tuple[list[PromptRow], TokenisationReport]:
        """The prompts of a source, for a game.

        Args:
            source: A file or data set, as the user gave it.
            split: Its name, for the report.

        Raises:
            InputError: anything is wrong with them.
        """
        asked = read_prompts(source, self.limit)
        return tokenise_prompts(asked, self._template(), self.limits, completion_room=self.completion_room, split=split)

    def rows(self, source: str, split: str) -> tuple[TokenRows, TokenisationReport]:
        """The rows of a source, from the cache where they are in it; as `prompts` otherwise."""
        encoder = self._encoder()

        def make(keep: Callable[[Sequence[TokenRow]], Any]) -> TokenisationReport:
            found = RowSet(source=source, kind=cast(RowKind, self.kind))
            rows = stream_rows(found, self.labels, self.ranked_pairs, self.limit, uses_margin=self.uses_margin)
            return tokenise(with_bar(rows, f"data.{split} becomes tokens"), found, encoder, keep, split=split)

        return kept_rows(self._settings(source), source, split, make)

    def _encoder(self) -> RowEncoder:
        soft = self.labels == "soft"
        if self.reads == "scores":
            texts = Conversations(self.tokenizer, self.template, "the policy", "data.template", ends_at_eos=True)
            return WholeEncoder(texts, self.limits, soft=soft)
        if self.kind == "comparisons":
            return ComparisonEncoder(self._questions(), self.limits, soft=soft)
        return ApartEncoder(self._template(), self.limits, soft=soft)

    def _template(self) -> Template:
        return make_template(self.template, self.tokenizer)

    def _questions(self) -> Questions:
        return Questions(self.tokenizer, self.template, option="policy.path")

    @cached_property
    def _tokenizer_digest(self) -> str:
        return tokenizer_digest(self.tokenizer)

    def _settings(self, source: str) -> dict[str, Any]:
        return {
            "source": source_digest(source),
            "format": source_format(source),
            "tokenizer": self._tokenizer_digest,
            "template": self.template,
            "limits": asdict(self.limits),
            "labels": self.labels,
            "ranked_pairs": self.ranked_pairs,
            "limit": self.limit,
            "kind": self.kind,
            "reads": self.reads,
            "uses_margin": self.uses_margin,
        }
