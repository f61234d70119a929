"""Recorded completions from a file: one row each, token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nashtune.data.sources import read_source
from nashtune.errors import InputError, nearest
from nashtune.interfaces.sampler import Completion

COLUMNS = ("prompt_ids", "prompt", "round", "k", "token_ids", "token_logp", "kept_mass", "finish", "version", "text")
WHY_IDS = (
    "one text can be many token sequences, and log-probs belong to the one that was drawn. For a text alone, "
    "tokenizer(text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id] makes token_ids"
)
Key = tuple[int | None, int | tuple[int, ...]]  # (round or None for any, number of the prompt or its token ids)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the file.

    Args:
        where: Its place, for messages.
        prompt: Number of the prompt in the run's prompts, from 0; None where the row gives token ids only.
        prompt_ids: Token ids of the prompt; None where the row gives a number only.
        round: None where the row belongs to any round.
        k: None where rows count in their order.
        completion: What was drawn; its `prompt` and `k` are set when it is handed out.
    """

    where: str
    prompt: int | None
    prompt_ids: tuple[int, ...] | None
    round: int | None
    k: int | None
    completion: Completion


class FileSource:
    """All completions of a file, in memory.

    Args:
        path: As `nashtune.data.sources.read_source` takes it.
        eos: Tokens that end a completion: a row without `finish` that ends in one has finished.
        vocabulary: Token ids lie below it.

    Raises:
        InputError: the file cannot be read, or a row is not what the format says.
    """

    def __init__(self, path: str, eos: Sequence[int], vocabulary: int) -> None:
        self._path = path
        self._rounded = False
        self._groups: dict[Key, dict[int, Row]] = {}
        first: Row | None = None
        for raw in read_source(path):
            if raw.data is None:
                raise InputError(f"{raw.where}: {raw.problem}")
            row = _Reader(raw.where, raw.data, vocabulary).row(eos)
            first = first or row
            for name in ("round", "k"):
                if (getattr(row, name) is None) != (getattr(first, name) is None):
                    raise InputError(f"{row.where}: `{name}` stands in some rows and not in others; give all or none")
            self._rounded = row.round is not None
            self._add(row)

    def _add(self, row: Row) -> None:
        prompt = row.prompt if row.prompt is not None else row.prompt_ids
        assert prompt is not None
        group = self._groups.setdefault((row.round, prompt), {})
        k = len(group) if row.k is None else row.k
        if k in group:
            raise InputError(f"{row.where}: completion k={k} of this prompt and round stands in {group[k].where} too")
        group[k] = row

    def find(self, round: int, role: str, number: int, prompt_ids: Sequence[int]) -> dict[int, Completion]:
        """Completions of a prompt by k. A file knows of no opponents: it answers for every role.

        Raises:
            InputError: there is none of this prompt and round, or it was recorded for other token ids.
        """
        at, ids = round if self._rounded else None, tuple(prompt_ids)
        group = self._groups.get((at, number)) or self._groups.get((at, ids))
        if group is None:
            rounds = sorted({key[0] for key in self._groups if key[0] is not None})
            if self._rounded and round not in rounds:
                raise InputError(f"{self._path}: no completion of round {round}; it has rounds {rounds}")
            raise InputError(
                f"{self._path}: no completion of prompt {number} in round {round}; it has neither this number nor the "
                f"token ids {_shown(ids)}, so it was made for other prompts or another tokenizer or template"
            )
        for row in group.values():
            if row.prompt_ids not in (None, ids):
                assert row.prompt_ids is not None
                raise InputError(different(row.where, number, row.prompt_ids, ids))
        return {k: row.completion for k, row in group.items()}


def different(where: str, number: int, recorded: Sequence[int], now: Sequence[int]) -> str:
    """Message: a prompt is not the one that was recorded."""
    return (
        f"{where}: prompt {number} was recorded with the token ids {_shown(recorded)} and has {_shown(now)} in this "
        "run; recorded completions need the same prompts in the same order, tokenizer and template"
    )


def _shown(ids: Sequence[int]) -> str:
    return str(list(ids)) if len(ids) <= 12 else f"[{', '.join(map(str, ids[:12]))}, ...] ({len(ids)})"


class _Reader:
    """Reads one row, column by column."""

    def __init__(self, where: str, data: Mapping[str, Any], vocabulary: int) -> None:
        self.where, self.vocabulary = where, vocabulary
        self.data = {name: value for name, value in data.items() if value is not None}  # parquet fills with null
        if "token_ids" not in self.data:
            raise InputError(f"{where}: no token_ids; recorded completions are token ids, for {WHY_IDS}")
        for name in data:
            if name not in COLUMNS:
                raise InputError(f"{where}: unknown column '{name}'{nearest(name, COLUMNS)}")

    def row(self, eos: Sequence[int]) -> Row:
        data = self.data
        if isinstance(data.get("prompt"), str):
            raise InputError(
                f"{self.where}: prompt is text; give prompt_ids (its token ids, as the run's template and tokenizer "
                "make them) or as prompt its number in the run's prompts, from 0"
            )
        if "prompt" not in data and "prompt_ids" not in data:
            raise InputError(f"{self.where}: says of no prompt; give prompt_ids, or as prompt its number")
        ids = self.ids("token_ids")
        finish = data.get("finish", "stop" if ids[-1] in eos else "length")
        if finish not in ("stop", "length"):
            raise InputError(f"{self.where}: finish is {finish!r}; allowed are 'stop' and 'length'")
        return Row(
            where=self.where,
            prompt=self.number("prompt"),
            prompt_ids=self.ids("prompt_ids") if "prompt_ids" in data else None,
            round=self.number("round"),
            k=self.number("k"),
            completion=Completion(
                prompt=0,
                k=0,
                token_ids=ids,
                token_logp=self.numbers("token_logp", len(ids)),
                finish=finish,
                kept_mass=self.numbers("kept_mass", len(ids)),
                version=str(data.get("version", "")),
            ),
        )

    def number(self, name: str) -> int | None:
        value = self.data.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise InputError(f"{self.where}: {name} is {value!r}; a whole number from 0 is needed")
        return value

    def ids(self, name: str) -> tuple[int, ...]:
        values = self.data[name]
        if not isinstance(values, list) or not values or not all(type(value) is int for value in values):
            raise InputError(f"{self.where}: {name} is {str(values)[:60]!r}; a list of token ids is needed, not empty")
        if wrong := [value for value in values if not 0 <= value < self.vocabulary]:
            raise InputError(
                f"{self.where}: {name} has {wrong[0]}, which the policy's vocabulary of {self.vocabulary} tokens lacks"
            )
        return tuple(values)

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        values = self.data.get(name) or []
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise InputError(f"{self.where}: {name} is {str(values)[:60]!r}; a list of numbers is needed")
        if len(values) not in (0, length):
            raise InputError(f"{self.where}: {len(values)} numbers in {name} for {length} token_ids")
        return tuple(map(float, values))
