"""Prompts of a game: read from rows of any format, and dealt out to the rounds. Importing this imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from nashtune.data.bad import refuse_rows
from nashtune.data.columns import misspelt, not_used, why_no_prompt
from nashtune.data.messages import Prompt, RowError, parse_completion, parse_prompt
from nashtune.data.sources import read_source
from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt as OraclePrompt

CONVERSATIONS = ("chosen", "rejected", "completion")  # columns that may hold the prompt's messages before an answer


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """A prompt of a game.

    Args:
        prompt_ids: Token ids that completions are drawn behind, BOS included where there is one.
        prompt: The whole prompt for an oracle: a text or a list of messages {role, content}.
        prompt_text: Its text, or its last message's.
        where: `file:line`.
    """

    prompt_ids: tuple[int, ...]
    prompt: OraclePrompt
    prompt_text: str
    where: str


@dataclass(kw_only=True)
class PromptSet:
    """What a source gave.

    Args:
        source: As it was asked for.
        rows: Different prompts, (prompt, `file:line`) of the first row that has it, in the source's order.
        unused: Columns that nothing reads, with the number of rows that have them.
        duplicates: Rows whose prompt an earlier one has; they are not in `rows`.
    """

    source: str
    rows: list[tuple[Prompt, str]] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0

    @property
    def read(self) -> int:
        """Rows of the source, repeated prompts among them."""
        return len(self.rows) + self.duplicates

    def notes(self) -> list[str]:
        """What a user should know about these rows, in sentences."""
        notes = []
        if self.unused:
            columns = not_used(self.unused, self.read)
            notes.append(f"{columns}; a game reads prompts and draws its own completions")
        if self.duplicates:
            notes.append(repeated(self.duplicates))
        return notes


def repeated(rows: int) -> str:
    """What is said of so many rows whose prompt an earlier row has."""
    return f"{rows} row{'s repeat' if rows > 1 else ' repeats'} an earlier prompt: a game has each prompt once"


def read_prompts(source: str, limit: int | None = None) -> PromptSet:
    """Read the prompt of every row of a source, each prompt once.

    Preference data repeat a prompt for every pair of its answers. How many pairs there are says nothing of a game,
    which draws answers of its own: a prompt that came in as often as that would fill rounds, and held-out comparisons
    would count one prompt as many.

    Args:
        source: What `read_source` takes; rows of any format, or with nothing but `prompt`.
        limit: Read this many rows and no more.

    Raises:
        InputError: a bad source, or rows without a prompt: the first one in full, up to five named, and how many.
    """
    found = PromptSet(source=source)
    bad: list[tuple[str, str]] = []
    seen: set[Prompt] = set()
    for raw in islice(read_source(source), limit):
        try:
            if raw.data is None:
                raise RowError(raw.problem)
            prompt, used = _prompt_of(raw.data)
        except RowError as error:
            bad.append((raw.where, str(error)))
            continue
        found.unused.update(name for name, value in raw.data.items() if value is not None and name not in used)
        if prompt in seen:
            found.duplicates += 1
            continue
        seen.add(prompt)
        found.rows.append((prompt, raw.where))
    refuse_rows(bad)
    return found


def fewer(asked: int, there: int) -> str | None:
    """What to say where `samples.prompts` asks for more different held-out prompts than there are."""
    if not 0 < there < asked:
        return None
    prompts = f"{there} different prompt{'s' * (there > 1)}"
    return f"samples.prompts {asked}, but data.validation has {prompts}: all are answered"


def _prompt_of(data: Mapping[str, Any]) -> tuple[Prompt, set[str]]:
    """A row's prompt, the same that a preference method would train with, and the columns that it stands in."""
    row = {name: value for name, value in data.items() if value is not None}
    asked = parse_prompt(row["prompt"]) if "prompt" in row else None
    if asked is None and (hint := misspelt(row, ("prompt",))):
        raise RowError(f"no 'prompt' in this row{hint}")
    used, prompts = {"prompt"}, [] if asked is None else [asked]
    for column in CONVERSATIONS:
        if isinstance(row.get(column), list) and (asked is None or len(row[column]) > 1):
            before, _ = parse_completion(row[column], column, asked)
            used.add(column)
            prompts.append(before)
    chats = [prompt for prompt in prompts if isinstance(prompt, tuple)]
    if not prompts:
        given = ", ".join(sorted(row)) or "nothing"
        raise RowError(
            f"no 'prompt' in this row, found {given}; a game draws completions for prompts: add 'prompt'"
            f"{why_no_prompt(data)}"
        )
    if any(chat != chats[0] for chat in chats):
        raise RowError("the conversations of this row differ before the last message; they must share the prompt")
    return (chats or prompts)[0], used


def prompts_in_round(size: int, rounds: int, per_round: int | None, round: int) -> int:
    """How many prompts a round has: `data.prompts_per_round`, or an even share of all of them.

    Args:
        size: Different prompts of the data set.
        rounds: Rounds of the game.
        per_round: `data.prompts_per_round`.
        round: From 1.

    Raises:
        InputError: more prompts for a round than there are, or a share of none.
    """
    if per_round is not None and per_round > size:
        raise InputError(
            f"data.prompts_per_round: {per_round}, but data.train has {size} different prompts, and a round draws for "
            f"each one once; give {size} or less, or none, which splits all of them over the rounds"
        )
    if per_round is None and size < rounds:
        raise InputError(
            f"data.train: {size} prompts cannot be split over {rounds} rounds; set data.prompts_per_round, so that "
            "prompts come again in later rounds, or give more prompts"
        )
    return per_round if per_round is not None else round * size // rounds - (round - 1) * size // rounds


def round_prompts(size: int, rounds: int, per_round: int | None, seed: int, round: int) -> list[int]:
    """Indices of a round's prompts, none twice: a pure function, so that a resumed run deals the same ones.

    Prompts come in the seed's order. Without `per_round` every prompt is in exactly one round; with it, each round goes
    on where the one before has ended, from the beginning again when all have been used.

    Args:
        size: Different prompts of the data set.
        rounds: Rounds of the game.
        per_round: `data.prompts_per_round`.
        seed: The run's, >= 0.
        round: From 1.

    Raises:
        InputError: more prompts for a round than there are, or a share of none.
    """
    from nashtune.data.order import permutation  # loads numpy, which reading rows does without

    count = prompts_in_round(size, rounds, per_round, round)
    first = (round - 1) * size // rounds if per_round is None else (round - 1) * per_round
    order = permutation(size, seed, 0)
    return [int(order[(first + i) % size]) for i in range(count)]
