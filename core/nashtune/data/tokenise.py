"""Checked rows become token ids; what is too long is refused, dropped, or loses the beginning of its prompt."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from nashtune.data.messages import Prompt, RowError
from nashtune.data.report import Lengths, TokenisationReport
from nashtune.data.rows import Example, Pair, RowSet, refuse_rows
from nashtune.errors import InputError

if TYPE_CHECKING:
    from nashtune.data.template import Rendered, Template

Overflow = Literal["error", "drop", "truncate_prompt"]
FEW = 12  # tokens shown in the report


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """A row as token ids.

    Args:
        prompt_ids: The prompt, BOS included where there is one.
        completions: (chosen, rejected) of a pair, (completion,) of an example; each ends with EOS.
        p_chosen: Probability that chosen is better, when labels are soft.
        desirable: Label of an example.
        where: `file:line`.
        prompt_text: The prompt's text, or its last message's.
    """

    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    p_chosen: float | None = None
    desirable: bool | None = None
    where: str
    prompt_text: str

    @property
    def longest(self) -> int:
        """Tokens of the longer completion."""
        return max(map(len, self.completions))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be how long.

    Args:
        max_length: Tokens of prompt and completion together.
        max_prompt_length: Tokens of the prompt.
        overflow: What happens to a row that is longer: an error, the row is dropped, or its prompt loses its beginning
            (a BOS stays). A completion is never cut; when it does not fit behind one prompt token, the row is dropped.
    """

    max_length: int
    max_prompt_length: int | None = None
    overflow: Overflow = "error"

    def room(self, row: TokenRow) -> int:
        """Tokens that the prompt may have."""
        room = self.max_length - row.longest
        return room if self.max_prompt_length is None else min(room, self.max_prompt_length)


def tokenise(
    found: RowSet, template: Template, limits: Limits, *, soft: bool, split: str = "train"
) -> tuple[list[TokenRow], TokenisationReport]:
    """Token ids of every row that fits.

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
    rendered, bad = _render(found.rows, template)
    refuse_rows(bad)
    rows = _encode(found.rows, rendered, template, soft)
    kept, counts = _fit(rows, limits, template.tokenizer.bos_token_id)
    notes = found.notes()
    if not kept:
        raise InputError(
            f"{found.source}: none of the {len(rows)} {_kind(rows[0])} fits data.max_length {limits.max_length}; "
            "raise it"
        )
    if kept[0].desirable is not None and _may_overflow(kept, limits):
        notes.append(
            "a prompt may lose its beginning where it is joined with another example's completion (for the KL estimate)"
        )
    return kept, TokenisationReport(
        split=split,
        source=found.source,
        kind=_kind(kept[0]),
        read=found.read,
        used=len(kept),
        dropped_overflow=counts["overflow"],
        dropped_completion=counts["completion"],
        truncated=counts["truncated"],
        duplicates=found.duplicates,
        special_text=sum(row.special for row in rendered),
        eos_written=sum(row.eos_written for row in rendered),
        trimmed=sum(row.trimmed for row in rendered),
        desirable=sum(bool(row.desirable) for row in kept) if kept[0].desirable is not None else None,
        prompt_tokens=Lengths.of([len(row.prompt_ids) for row in kept]),
        completion_tokens=Lengths.of([len(ids) for row in kept for ids in row.completions]),
        prompt_start=str(template.tokenizer.decode(list(kept[0].prompt_ids[:FEW]))),
        completion_end=str(template.tokenizer.decode(list(kept[0].completions[0][-FEW:]))),
        fingerprint=fingerprint(kept),
        notes=tuple(notes),
    )


def _kind(row: TokenRow) -> str:
    return "pairs" if row.desirable is None else "examples"


def _render(rows: Sequence[Pair | Example], template: Template) -> tuple[list[Rendered], list[tuple[str, str]]]:
    rendered: list[Rendered] = []
    bad: list[tuple[str, str]] = []
    for row in rows:
        completions = (row.chosen, row.rejected) if isinstance(row, Pair) else (row.completion,)
        try:
            rendered.append(template.render(row.prompt, completions))
        except RowError as error:
            bad.append((row.where, str(error)))
    return rendered, bad


def _encode(
    rows: Sequence[Pair | Example], rendered: Sequence[Rendered], template: Template, soft: bool
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
                desirable=row.desirable if isinstance(row, Example) else None,
                where=row.where,
                prompt_text=_text(row.prompt),
            )
        )
    refuse_rows(bad)
    return tokens


def _text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1].content


def _fit(rows: Iterable[TokenRow], limits: Limits, bos: int | None) -> tuple[list[TokenRow], Counter[str]]:
    kept: list[TokenRow] = []
    counts: Counter[str] = Counter()
    bad: list[tuple[str, str]] = []
    for row in rows:
        room = limits.room(row)
        if len(row.prompt_ids) <= room:
            kept.append(row)
        elif limits.overflow == "error":
            bad.append((row.where, _too_long(row, limits)))
        elif limits.overflow == "drop":
            counts["overflow"] += 1
        elif (short := shorten(row.prompt_ids, room, bos)) is None:
            counts["completion"] += 1
        else:
            counts["truncated"] += 1
            kept.append(replace(row, prompt_ids=short))
    refuse_rows(bad)
    return kept, counts


def shorten(prompt_ids: Sequence[int], room: int, bos: int | None) -> tuple[int, ...] | None:
    """The end of a prompt in `room` tokens, behind its BOS if it has one; None when no token of the text fits."""
    if len(prompt_ids) <= room:
        return tuple(prompt_ids)
    first = tuple(prompt_ids[:1]) if bos is not None and prompt_ids[0] == bos else ()
    rest = room - len(first)
    return (*first, *prompt_ids[-rest:]) if rest > 0 else None


def _too_long(row: TokenRow, limits: Limits) -> str:
    prompt, longest = len(row.prompt_ids), row.longest
    if prompt + longest > limits.max_length:
        found = f"{prompt} prompt and {longest} completion tokens are more than data.max_length {limits.max_length}"
    else:
        found = f"{prompt} prompt tokens are more than data.max_prompt_length {limits.max_prompt_length}"
    choices = "drop (leave such rows out) or truncate_prompt (keep the prompt's end)"
    return f"{found}; raise the limit, or choose data.overflow: {choices}"


def _may_overflow(rows: Sequence[TokenRow], limits: Limits) -> bool:
    return max(len(row.prompt_ids) for row in rows) + max(row.longest for row in rows) > limits.max_length


def fingerprint(rows: Iterable[TokenRow]) -> str:
    """sha256 of token ids and labels, in order: the same exactly when training would see the same data."""
    digest = hashlib.sha256()
    for row in rows:
        for ids in (row.prompt_ids, *row.completions):
            digest.update(np.asarray([len(ids), *ids], dtype="<i8").tobytes())
        digest.update(repr((row.p_chosen, row.desirable)).encode())
    return digest.hexdigest()
