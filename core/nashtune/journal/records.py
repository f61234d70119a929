"""What a game keeps in its journal, with types: completions, judgements, scores and pairs.

Numbers are kept as float64, so that what a resumed run reads is bit for bit what an uninterrupted one has in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import pyarrow as pa

from nashtune.interfaces.oracle import Judgement, Scored
from nashtune.interfaces.pairing import Paired
from nashtune.interfaces.sampler import Completion
from nashtune.interfaces.schedule import Role
from nashtune.journal.rules import broken
from nashtune.journal.store import Journal

PAIRS = "pairs"
DROPPED = "dropped"

TYPES = {
    "prompt": pa.int32(),
    "k": pa.int32(),
    "token_ids": pa.list_(pa.int32()),
    "token_logp": pa.list_(pa.float64()),
    "finish": pa.string(),
    "kept_mass": pa.list_(pa.float64()),
    "version": pa.string(),
    "text": pa.string(),
    "first": pa.int32(),
    "second": pa.int32(),
    "p": pa.float64(),
    "role": pa.string(),
    "mean": pa.float64(),
    "variance": pa.float64(),
    "members": pa.list_(pa.float64()),
    "chosen": pa.int32(),
    "rejected": pa.int32(),
    "p_chosen": pa.float64(),
    "win_rate_chosen": pa.float64(),
    "win_rate_rejected": pa.float64(),
    "reason": pa.string(),
    "count": pa.int64(),
}
"""Type of each column, in every table that has it."""


def completions_name(role: Role, part: int) -> str:
    """Name of a part of a role's completions."""
    return f"completions-{role}-{part:04d}"


def judgements_name(part: int) -> str:
    """Name of a part of the judgements."""
    return f"judgements-{part:04d}"


def scores_name(part: int) -> str:
    """Name of a part of the scores."""
    return f"scores-{part:04d}"


def write_completions(
    journal: Journal, round: int, role: Role, part: int, completions: Sequence[Completion], texts: Sequence[str]
) -> None:
    """Finishes a part of the completions.

    Args:
        journal: The run's.
        round: From 1.
        role: Who drew them.
        part: Number of the part.
        completions: `Completion.prompt` is the number of the prompt in the whole prompt set.
        texts: Their decoded texts, as the oracle reads them.
    """
    columns = _columns(Completion, completions)
    journal.write_table(round, completions_name(role, part), {**columns, "text": _column("text", texts)})


def read_completions(journal: Journal, round: int, role: Role, part: int) -> tuple[list[Completion], list[str]]:
    """Completions and their texts."""
    columns = _read(journal, round, completions_name(role, part), _types(Completion, "text"), once=("prompt", "k"))
    texts = columns.pop("text")
    for name in ("token_ids", "token_logp", "kept_mass"):
        columns[name] = [tuple(values) for values in columns[name]]
    return _records(Completion, columns), texts


def write_judgements(journal: Journal, round: int, part: int, rows: Sequence[Judgement]) -> None:
    """Finishes a part of the judgements."""
    journal.write_table(round, judgements_name(part), _columns(Judgement, rows))


def read_judgements(journal: Journal, round: int, part: int) -> list[Judgement]:
    """A part of the judgements."""
    return _records(Judgement, _read(journal, round, judgements_name(part), _types(Judgement)))


def write_scores(journal: Journal, round: int, part: int, rows: Sequence[Scored]) -> None:
    """Finishes a part of the scores."""
    journal.write_table(round, scores_name(part), _columns(Scored, rows))


def read_scores(journal: Journal, round: int, part: int) -> list[Scored]:
    """A part of the scores."""
    columns = _read(journal, round, scores_name(part), _types(Scored), once=("role", "prompt", "k"))
    return _records(Scored, {**columns, "members": [tuple(values) for values in columns["members"]]})


def write_pairs(journal: Journal, round: int, rows: Sequence[tuple[int, Paired]], dropped: Mapping[str, int]) -> None:
    """Finishes the pairs of a round; once `pairs` is finished, so is `dropped`.

    Args:
        journal: The run's.
        round: From 1.
        rows: Number of the prompt in the whole prompt set, and the pair.
        dropped: Why other pairs were not made, with how many.
    """
    counts = sorted(dropped.items())
    journal.write_table(
        round,
        DROPPED,
        {
            "reason": _column("reason", [reason for reason, _ in counts]),
            "count": _column("count", [count for _, count in counts]),
        },
    )
    prompts = _column("prompt", [prompt for prompt, _ in rows])
    journal.write_table(round, PAIRS, {"prompt": prompts, **_columns(Paired, [pair for _, pair in rows])})


def read_pairs(journal: Journal, round: int) -> tuple[list[tuple[int, Paired]], dict[str, int]]:
    """The pairs of a round, and why others were not made."""
    counts = _read(journal, round, DROPPED, {name: TYPES[name] for name in ("reason", "count")}, once=("reason",))
    columns = _read(journal, round, PAIRS, _types(Paired, "prompt"))
    prompts = columns.pop("prompt")
    dropped = dict(zip(counts["reason"], counts["count"], strict=True))
    return list(zip(prompts, _records(Paired, columns), strict=True)), dropped


Record = TypeVar("Record", Completion, Judgement, Scored, Paired)


def _read(
    journal: Journal, round: int, name: str, types: Mapping[str, Any], *, once: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """The columns of a table whose values can be; see `nashtune.journal.rules`."""
    columns = journal.read_table(round, name, types)
    if why := broken(columns, once):
        raise journal.altered(round, f"{name}.parquet", why)
    return columns


def _column(name: str, values: Sequence[Any]) -> Any:
    return pa.array(values, type=TYPES[name])


def _types(kind: type[Record], *more: str) -> dict[str, Any]:
    """The columns of a table of records, with what stands beside each record."""
    return {name: TYPES[name] for name in (*(field.name for field in fields(kind)), *more)}


def _columns(kind: type[Record], rows: Sequence[Record]) -> dict[str, Any]:
    return {field.name: _column(field.name, [getattr(row, field.name) for row in rows]) for field in fields(kind)}


def _records(kind: type[Record], columns: Mapping[str, Sequence[Any]]) -> list[Record]:
    return [kind(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
