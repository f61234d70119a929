"""Recorded completions from the journal of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from nashtune.errors import InputError
from nashtune.interfaces.oracle import Judgement, Scored
from nashtune.interfaces.sampler import Completion
from nashtune.interfaces.schedule import Role
from nashtune.journal.manifest import NEXT_STEP
from nashtune.journal.records import judgements_name, read_completions, read_judgements, read_scores, scores_name
from nashtune.journal.store import Journal
from nashtune.samplers.recorded_file import different

PROMPTS = "prompts"
"""Table of a round: number and token ids of its prompts, and the part of the journal that each belongs to."""
TYPES = {"prompt": pa.int64(), "part": pa.int64(), "token_ids": pa.list_(pa.int64())}


def write_prompts(
    journal: Journal, round: int, parts: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]]
) -> None:
    """Finishes the table of a round's prompts, so that a replay can tell whether it has the same ones.

    Args:
        journal: The run's.
        round: From 1.
        parts: Numbers of the prompts in the whole prompt set, in the groups that are journalled together.
        prompts: Token ids of the prompts, one part after another.
    """
    numbers = [(number, part) for part, group in enumerate(parts) for number in group]
    columns: dict[str, list[Any]] = {
        "prompt": [number for number, _ in numbers],
        "part": [part for _, part in numbers],
        "token_ids": [list(ids) for ids in prompts],
    }
    journal.write_table(round, PROMPTS, {name: pa.array(values, TYPES[name]) for name, values in columns.items()})


def read_prompts(journal: Journal, round: int) -> dict[str, list[Any]]:
    """Columns of the table of a round's prompts.

    Raises:
        InputError: it is not there, or not as it was written: a number is missing, or a part has no prompts.
    """
    columns = journal.read_table(round, PROMPTS, TYPES)
    parts, numbers = columns["part"], columns["prompt"]
    whole = None not in numbers and None not in columns["token_ids"]
    # so many parts are made as the largest number says: a table from elsewhere would fill the memory with them
    if not whole or not all(part is not None and 0 <= part < len(parts) for part in parts):
        raise InputError(f"{journal.folder}, round {round}: {PROMPTS}.parquet was altered; {NEXT_STEP}")
    return columns


class JournalSource:
    """Completions and judgements of a journal, a round at a time.

    Args:
        path: The journal's folder, or the folder of the run.

    Raises:
        InputError: there is no journal.
    """

    def __init__(self, path: Path) -> None:
        folder = path / "journal" if (path / "journal").is_dir() else path
        self._journal = Journal(folder)
        self._held: tuple[int, Role] | None = None
        self._prompts: dict[int, list[int]] = {}
        self._groups: dict[int, dict[int, Completion]] = {}
        if not self._journal.rounds():
            raise InputError(f"{path}: is no journal: it has no round-001/manifest.json; name a run's folder or a file")

    def find(self, round: int, role: Role, number: int, prompt_ids: Sequence[int]) -> dict[int, Completion]:
        """Completions of a prompt by k.

        Raises:
            InputError: the round or the prompt is not there, or the prompt has other token ids.
        """
        if self._held != (round, role):
            self._read(round, role)
        where = f"{self._journal.folder}, round {round}"
        if number not in self._groups:
            raise InputError(f"{where}: no completion of prompt {number}; the run had other prompts in this round")
        if list(prompt_ids) != self._prompts[number]:
            raise InputError(different(where, number, self._prompts[number], prompt_ids))
        return self._groups[number]

    def judgements(self, round: int, part: int) -> list[Judgement] | None:
        """A part of the judgements of a round; None where the journal has none."""
        if not self._journal.has(round, judgements_name(part)):
            return None
        return read_judgements(self._journal, round, part)

    def scores(self, round: int, part: int) -> list[Scored] | None:
        """A part of the rewards of a round; None where the journal has none."""
        return read_scores(self._journal, round, part) if self._journal.has(round, scores_name(part)) else None

    def _read(self, round: int, role: Role) -> None:
        journal = self._journal
        parts = self._parts(round, role)
        if not parts:
            of_opponents = "" if role == "policy" else " of opponents"
            rounds = [known for known in journal.rounds() if self._parts(known, role)]
            raise InputError(
                f"{journal.folder}: no completions{of_opponents} in round {round}; it has those of rounds {rounds}"
            )
        table = read_prompts(journal, round)
        self._prompts = dict(zip(table["prompt"], table["token_ids"], strict=True))
        self._groups = {}
        for part in parts:
            for one in read_completions(journal, round, role, part)[0]:
                self._groups.setdefault(one.prompt, {})[one.k] = replace(one, prompt=0, k=0)
        self._held = (round, role)

    def _parts(self, round: int, role: Role) -> list[int]:
        begin = f"completions-{role}-"
        numbers = [name.removeprefix(begin) for name in self._journal.names(round) if name.startswith(begin)]
        return sorted(int(number) for number in numbers if number.isdecimal())
