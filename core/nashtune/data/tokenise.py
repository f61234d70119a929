"""Checked rows become token ids; what is too long is refused, dropped, or loses the beginning of its prompt."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nashtune.data.lengths import Limits, fit_rows
from nashtune.data.messages import Prompt, RowError
from nashtune.data.report import Lengths, TokenisationReport
from nashtune.data.rows import Example, Pair, Ranked, RowSet, refuse_rows
from nashtune.errors import InputError

if TYPE_CHECKING:
    from nashtune.data.template import Rendered, Template

FEW = 12  # tokens shown in the report


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


def tokenise(
    found: RowSet, template: Template, limits: Limits, *, soft: bool, split: str = "train"
) -> tuple[list[TokenRow], TokenisationReport]:
    """Token ids of every pair or example that fits, prompt and completions apart.

    Args:
        found: Checked rows.
        template: Renders and encodes them.
        limits: Lengths, and what to do beyond them.
        soft: Whether p_chosen goes into the rows.
        split: Its name, for the report.

    Raises:
        InputError: a row that does not fit the template, becomes empty or identical as tokens, is too long while
            overflow is "error", or when no row is left.
    """
    assert found.kind in ("pairs", "examples"), "other kinds have modules of their own"
    rendered, bad = _render(found.rows, template)
    refuse_rows(bad)
    rows = _encode(found.rows, rendered, template, soft)
    sized = [(row, row.longest, f"{row.longest} completion tokens") for row in rows]
    kept, counts = fit_rows(sized, limits, template.tokenizer.bos_token_id)
    notes = []
    if kept and kept[0].desirable is not None and _may_overflow(kept, limits):
        notes.append(
            "a prompt may lose its beginning where it is joined with another example's completion (for the KL estimate)"
        )
    return kept, report_of(
        kept,
        counts,
        found,
        limits,
        template.tokenizer,
        split=split,
        special_text=sum(row.special for row in rendered),
        eos_written=sum(row.eos_written for row in rendered),
        trimmed=sum(row.trimmed for row in rendered),
        notes=notes,
    )


def report_of(
    kept: Sequence[TokenRow],
    counts: Counter[str],
    found: RowSet,
    limits: Limits,
    tokenizer: Any,
    *,
    split: str,
    special_text: int,
    eos_written: int = 0,
    trimmed: int = 0,
    notes: Sequence[str] = (),
) -> TokenisationReport:
    """What became of the rows.

    Args:
        kept: Rows that are trained on.
        counts: `overflow`, `completion` and `truncated`, as counted by what fitted them.
        found: The checked rows.
        limits: Lengths, for the message where nothing fits.
        tokenizer: Decodes what the report shows.
        split: Its name.
        special_text: Rows whose own text contains special tokens.
        eos_written: Rows with EOS written at the end of a completion.
        trimmed: Rows with a completion that the chat template changed.
        notes: Beside those of `found`.

    Raises:
        InputError: no row is left.
    """
    if not kept:
        raise InputError(
            f"{found.source}: none of the {found.training_rows} {found.kind} fits data.max_length "
            f"{limits.max_length}; raise it"
        )
    apart = bool(kept[0].prompt_ids)
    return TokenisationReport(
        split=split,
        source=found.source,
        kind=found.kind,
        read=found.read,
        used=len(kept),
        dropped_overflow=counts["overflow"],
        dropped_completion=counts["completion"],
        truncated=counts["truncated"],
        duplicates=found.duplicates,
        special_text=special_text,
        eos_written=eos_written,
        trimmed=trimmed,
        desirable=sum(bool(row.desirable) for row in kept) if kept[0].desirable is not None else None,
        prompt_tokens=Lengths.of([len(row.prompt_ids) for row in kept]) if apart else None,
        completion_tokens=Lengths.of([len(ids) for row in kept for ids in row.completions]),
        prompt_start=str(tokenizer.decode(list((kept[0].prompt_ids or kept[0].completions[0])[:FEW]))),
        completion_end=str(tokenizer.decode(list(kept[0].completions[0][-FEW:]))),
        fingerprint=fingerprint(kept),
        notes=(*found.notes(), *notes),
    )


def _render(
    rows: Sequence[Pair | Example | Ranked], template: Template
) -> tuple[list[Rendered], list[tuple[str, str]]]:
    rendered: list[Rendered] = []
    bad: list[tuple[str, str]] = []
    for row in rows:
        assert not isinstance(row, Ranked)
        completions = (row.chosen, row.rejected) if isinstance(row, Pair) else (row.completion,)
        try:
            rendered.append(template.render(row.prompt, completions))
        except RowError as error:
            bad.append((row.where, str(error)))
    return rendered, bad


def _encode(
    rows: Sequence[Pair | Example | Ranked], rendered: Sequence[Rendered], template: Template, soft: bool
) -> list[TokenRow]:
    tokens: list[TokenRow] = []
    bad: list[tuple[str, str]] = []
    prompts, answers = template.encode_prompts(rendered), template.encode_completions(rendered)
    for row, prompt, completions in zip(rows, prompts, answers, strict=True):
        if not prompt:
            bad.append((row.where, "the prompt has no tokens; a completion needs one to follow"))
        elif any(template.eos in ids[:-1] for ids in completions):
            eos = template.tokenizer.eos_token
            bad.append((row.where, f"a completion contains {eos}, which would end it in the middle; cut or remove it"))
        elif len({tuple(ids) for ids in completions}) < len(completions):
            bad.append((row.where, "'chosen' and 'rejected' are the same tokens once the template has trimmed them"))
        tokens.append(
            TokenRow(
                prompt_ids=tuple(prompt),
                completions=tuple(map(tuple, completions)),
                p_chosen=row.p_chosen if isinstance(row, Pair) and soft else None,
                margin=row.margin if isinstance(row, Pair) else None,
                desirable=row.desirable if isinstance(row, Example) else None,
                where=row.where,
                prompt_text=last_text(row.prompt),
            )
        )
    refuse_rows(bad)
    return tokens


def last_text(prompt: Prompt) -> str:
    """A prompt's text, or that of its last message."""
    return prompt if isinstance(prompt, str) else prompt[-1].content


def _may_overflow(rows: Sequence[TokenRow], limits: Limits) -> bool:
    return max(len(row.prompt_ids) for row in rows) + max(row.longest for row in rows) > limits.whole


def fingerprint(rows: Iterable[TokenRow]) -> str:
    """sha256 of token ids and labels, in order: the same exactly when training would see the same data."""
    digest = hashlib.sha256()
    for row in rows:
        for ids in (row.prompt_ids, *row.completions):
            digest.update(np.asarray([len(ids), *ids], dtype="<i8").tobytes())
        margin = () if row.margin is None else (row.margin,)
        tied = () if row.levels is None or len(set(row.levels)) == len(row.levels) else (row.levels,)
        digest.update(repr((row.p_chosen, row.desirable, *margin, *tied)).encode())
    return digest.hexdigest()
