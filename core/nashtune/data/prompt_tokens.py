"""Checked prompts become token ids, with room left for what a sampler draws behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from nashtune.data.bad import refuse_rows
from nashtune.data.lengths import Limits, fit_rows
from nashtune.data.messages import RowError, as_asked
from nashtune.data.prompts import PromptRow, PromptSet
from nashtune.data.report import Lengths, TokenisationReport
from nashtune.data.tokenise import FEW, last_text
from nashtune.errors import InputError

if TYPE_CHECKING:
    from nashtune.data.template import Template


def tokenise_prompts(
    found: PromptSet, template: Template, limits: Limits, *, completion_room: int, split: str = "train"
) -> tuple[list[PromptRow], TokenisationReport]:
    """Token ids of every prompt that fits, each once: prompts may differ as texts, and not for the model.

    Args:
        found: Checked prompts.
        template: Renders and encodes them.
        limits: Lengths, and what to do beyond them.
        completion_room: Most tokens that the sampler draws for a prompt (its `max_new_tokens`).
        split: Its name, for the report.

    Raises:
        InputError: a prompt that does not fit the template, has no tokens, is too long while overflow is "error", or
            when no prompt is left.
    """
    rows, special = _encode(found, template)
    words = f"{completion_room} completion tokens (sampler.max_new_tokens)"
    fitting, counts = fit_rows([(row, completion_room, words) for row in rows], limits, template.tokenizer.bos_token_id)
    different: dict[tuple[int, ...], PromptRow] = {}
    for row in fitting:
        different.setdefault(row.prompt_ids, row)
    kept, alike = list(different.values()), len(fitting) - len(different)
    if not kept:
        raise InputError(
            f"{found.source}: none of the {len(rows)} prompts fits data.max_length {limits.max_length} with {words}; "
            "raise it"
        )
    return kept, TokenisationReport(
        split=split,
        source=found.source,
        kind="prompts",
        read=found.read,
        used=len(kept),
        dropped_overflow=counts["overflow"],
        dropped_completion=counts["completion"],
        truncated=counts["truncated"],
        duplicates=found.duplicates + alike,
        special_text=special,
        eos_written=0,
        trimmed=0,
        desirable=None,
        prompt_tokens=Lengths.of([len(row.prompt_ids) for row in kept]),
        completion_tokens=None,
        prompt_start=str(template.tokenizer.decode(list(kept[0].prompt_ids[:FEW]))),
        completion_end=None,
        fingerprint=prompt_fingerprint(kept),
        notes=(
            *found.notes(),
            *([f"prompts that are the same tokens as an earlier one, and left out: {alike}"] if alike else []),
        ),
    )


def _encode(found: PromptSet, template: Template) -> tuple[list[PromptRow], int]:
    """The rows, and how many have special tokens in their own text."""
    rendered, bad = [], []
    for prompt, where in found.rows:
        try:
            rendered.append(template.render(prompt, ()))
        except RowError as error:
            bad.append((where, str(error)))
    refuse_rows(bad)
    rows = []
    for (prompt, where), ids in zip(found.rows, template.encode_prompts(rendered), strict=True):
        if not ids:
            bad.append((where, "the prompt has no tokens; a completion needs one to follow"))
        rows.append(
            PromptRow(prompt_ids=tuple(ids), prompt=as_asked(prompt), prompt_text=last_text(prompt), where=where)
        )
    refuse_rows(bad)
    return rows, sum(row.special for row in rendered)


def prompt_fingerprint(rows: Iterable[PromptRow]) -> str:
    """sha256 of the token ids, in order: the same exactly when a game would draw for the same prompts."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.asarray([len(row.prompt_ids), *row.prompt_ids], dtype="<i8").tobytes())
    return digest.hexdigest()
