"""Which rows of a file a run has used: the file is made into tokens again, as the run has done it.

A page shows rows as they are in their file; a run leaves out what is too long for it, and numbers the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nashtune.data.lengths import Limits
from nashtune.data.split_reader import SplitReader
from nashtune.errors import InputError
from nashtune.html.run_files import Run
from nashtune.models.locate import locate
from nashtune.models.sizes import context_length


@dataclass(frozen=True, kw_only=True)
class Used:
    """Rows of a split that a run has used.

    Args:
        where: `file:line` of each, in the run's order: number n of a prediction is that of the n-th.
        fingerprint: sha256 of their token ids and labels.
        read: Rows of the file.
    """

    where: tuple[str, ...]
    fingerprint: str
    read: int


def used_rows(run: Run, split: str, tokenizer: Any) -> Used:
    """The rows of a split that the run has used, if the file is still what the run has read.

    Args:
        run: Its settings say how rows become tokens.
        split: "validation" or "test".
        tokenizer: Of the run's policy.

    Raises:
        InputError: the rows cannot be read as the run has read them, or are others by now.
    """
    data: Mapping[str, Any] = run.config["data"]
    reports = (run.report or {}).get("data") or {}
    known = reports.get(split)
    like = known or reports.get("validation") or reports.get("train")
    if like is None:
        raise InputError("the run has written down nothing of its data")
    found = None
    for uses_margin in (False, True):  # it is in the fingerprint of rows that have one, if the loss reads it
        reader = SplitReader(
            tokenizer=tokenizer,
            kind=like["kind"],
            reads="logprobs" if like["prompt_tokens"] is not None or like["kind"] == "comparisons" else "scores",
            uses_margin=uses_margin,
            completion_room=0,
            template=data["template"],
            limits=Limits(
                max_length=data["max_length"],
                max_prompt_length=data["max_prompt_length"],
                overflow=data["overflow"],
                context=_context(run),
            ),
            labels=data["labels"],
            ranked_pairs=data["ranked_pairs"],
            limit=data["limit"],
        )
        rows, report = reader.rows(str(data[split]), split)
        found = Used(where=tuple(row.where for row in rows), fingerprint=report.fingerprint, read=report.read)
        if known is None or known["fingerprint"] == found.fingerprint:
            return found
    raise InputError(f"{data[split]} is not any more what the run has read")


def _context(run: Run) -> int | None:
    """What the model can read; with it rows are found that the run has kept."""
    try:
        return context_length(locate(run.config["policy"]["path"]))
    except InputError:
        return None
