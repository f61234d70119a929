"""Rows of a perplexity filter: answers in, and the rows that are kept out, with the source's own columns.

Preferences {prompt, chosen, rejected} and {prompt, completion, label} are kept or left out as a whole. Of candidates
{prompt, responses[, scores]} each answer is kept or left out, with its score; scores may be missing, for answers that
are filtered before anybody labels them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from nashtune.data.lengths import Limits, fit_rows
from nashtune.data.messages import Prompt, RowError
from nashtune.data.parse import Pair, Ranked, parse_row
from nashtune.data.rows import refuse_rows
from nashtune.data.sources import RawRow, read_source

if TYPE_CHECKING:
    from nashtune.data.template import Template

ApplyTo = Literal["both", "chosen", "rejected", "any"]
PAIR = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """A row with its answers.

    Args:
        source: The file that it is from.
        where: `file:line`.
        data: The row's columns as they were read.
        prompt: Text or messages.
        slots: What each answer is: chosen, rejected; desirable or undesirable; response.
        texts: The answers.
        prompt_ids: Tokens, once they are known.
        answer_ids: Tokens of the answers, EOS included.
    """

    source: str
    where: str
    data: Mapping[str, Any]
    prompt: Prompt
    slots: tuple[str, ...]
    texts: tuple[str, ...]
    prompt_ids: tuple[int, ...] = ()
    answer_ids: tuple[tuple[int, ...], ...] = ()


@dataclass(kw_only=True)
class Read:
    """Rows of all sources.

    Args:
        rows: Those that fit.
        read: How many there were, by source.
        too_long: How many were left out for their length.
        truncated: How many prompts lost their beginning.
    """

    rows: list[Candidates] = field(default_factory=list)
    read: Counter[str] = field(default_factory=Counter)
    too_long: int = 0
    truncated: int = 0


def read_candidates(sources: Sequence[str], limit: int | None, apply_to: ApplyTo) -> Read:
    """Read and check every row.

    Args:
        sources: What `read_source` takes.
        limit: Rows of each source, at most.
        apply_to: Which answers the filter asks for.

    Raises:
        InputError: a bad source, or bad rows: the first one in full, up to five named, and how many there are.
    """
    found = Read()
    bad: list[tuple[str, str]] = []
    for source in sources:
        for raw in islice(read_source(source), limit):
            found.read[source] += 1
            try:
                found.rows.append(_candidates(raw, source, apply_to))
            except RowError as error:
                bad.append((raw.where, str(error)))
    refuse_rows(bad)
    return found


def _candidates(raw: RawRow, source: str, apply_to: ApplyTo) -> Candidates:
    if raw.data is None:
        raise RowError(raw.problem)
    row = parse_row(_labelled(raw.data), raw.where)
    slots: tuple[str, ...]
    texts: tuple[str, ...]
    if isinstance(row, Pair):
        slots, texts = PAIR, (row.chosen, row.rejected)
    elif isinstance(row, Ranked):
        slots, texts = ("response",) * len(row.responses), row.responses
    else:
        slots, texts = ("desirable" if row.desirable else "undesirable",), (row.completion,)
    if apply_to in PAIR and slots != PAIR:
        raise RowError(f"apply_to: {apply_to}, and this row has no '{apply_to}'; use apply_to: both")
    return Candidates(source=source, where=raw.where, data=raw.data, prompt=row.prompt, slots=slots, texts=texts)


def _labelled(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with scores where it has candidates and nobody has scored them: only the texts count here."""
    responses = data.get("responses")
    if not isinstance(responses, list) or data.get("scores") is not None:
        return data
    if any(isinstance(item, Mapping) and {"score", "win_rate"} & item.keys() for item in responses):
        return data
    return {**data, "scores": [0.0] * len(responses)}


def encode(found: Read, template: Template, limits: Limits) -> None:
    """Tokens of all rows, as training has them; those that are too long are refused, left out or shortened.

    Raises:
        InputError: a row does not fit the template, or is too long while overflow is "error".
    """
    rendered, bad = [], []
    for row in found.rows:
        try:
            rendered.append(template.render(row.prompt, row.texts))
        except RowError as error:
            bad.append((row.where, str(error)))
    refuse_rows(bad)
    prompts, answers = template.encode_prompts(rendered), template.encode_completions(rendered)
    rows = [
        replace(row, prompt_ids=tuple(prompt), answer_ids=tuple(map(tuple, ids)))
        for row, prompt, ids in zip(found.rows, prompts, answers, strict=True)
    ]
    refuse_rows([(row.where, "the prompt has no tokens") for row in rows if not row.prompt_ids])
    sized = [(row, longest, f"{longest} answer tokens") for row in rows for longest in (max(map(len, row.answer_ids)),)]
    found.rows, counts = fit_rows(sized, limits, template.tokenizer.bos_token_id)
    found.too_long = counts["overflow"] + counts["completion"]
    found.truncated = counts["truncated"]


def select(
    row: Candidates, passes: Sequence[bool], nll: Sequence[float], *, apply_to: ApplyTo, pair_gap: float | None
) -> tuple[Mapping[str, Any] | None, str]:
    """What is kept of a row, and why nothing is.

    Args:
        row: The row.
        passes: Which of its answers the rule keeps.
        nll: Of its answers.
        apply_to: Whose perplexity counts in a pair.
        pair_gap: Largest difference between the nll of chosen and rejected; None for any.

    Returns:
        The row's columns, of candidates only those kept; or None and "rule", "pair_gap" or "fewer than two answers".
    """
    if row.slots == PAIR:
        chosen, rejected = passes
        fits = {"both": chosen and rejected, "any": chosen or rejected, "chosen": chosen, "rejected": rejected}
        if not fits[apply_to]:
            return None, "rule"
        if pair_gap is not None and abs(nll[0] - nll[1]) > pair_gap:
            return None, "pair_gap"
        return row.data, ""
    if row.slots[0] != "response":
        return (row.data, "") if passes[0] else (None, "rule")
    places = [i for i, passed in enumerate(passes) if passed]
    if len(places) < 2:
        return None, "fewer than two answers"
    lists = {name: row.data[name] for name in ("responses", "scores") if row.data.get(name) is not None}
    return {**row.data, **{name: [values[i] for i in places] for name, values in lists.items()}}, ""


def to_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """JSON lines; dates and the like, which JSON lacks, become text."""
    return "".join(json.dumps(dict(row), ensure_ascii=False, default=str) + "\n" for row in rows).encode()
