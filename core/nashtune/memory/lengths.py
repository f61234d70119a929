"""How many tokens rows have, without reading all of them as tokens.

The longest rows decide a peak: those, and some of the first, are encoded; the others are counted in characters and
converted by the ratio that was found. Chat templates are applied to a probe, for the tokens that they add.

Legend: R = rows.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nashtune.data.messages import Prompt
from nashtune.data.parse import Example, Pair, Ranked
from nashtune.memory.counts import TOKENIZER, count_tokens
from nashtune.models.locate import ModelFolder

FIRST, LONGEST = 24, 24  # rows that are encoded
MOST_CHARACTERS = 400_000  # of them: a tokenizer reads about that in a tenth of a second

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RowLengths:
    """Tokens of R rows.

    Args:
        prompt: Of each prompt (R,).
        longest: Of each row's longest completion (R,).
        total: Of each row's completions together (R,).
        completions: Completions of each row (R,).
    """

    prompt: Counts
    longest: Counts
    total: Counts
    completions: Counts

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.prompt)


class Measure:
    """Takes rows one by one and keeps their sizes, and the texts of a few."""

    def __init__(self) -> None:
        self._sizes = tuple(array("q") for _ in range(4))  # prompt, longest, all completions, their number; characters
        self._turns = array("q")
        self._first: list[tuple[int, list[str]]] = []
        self._longest: list[tuple[int, int, list[str]]] = []

    def add(self, row: Any) -> None:
        """A checked row."""
        prompt, completions = texts(row)
        number = len(self._turns)
        sizes = [len(text) for text in completions]
        for column, size in zip(self._sizes, (len(prompt), max(sizes), sum(sizes), len(sizes)), strict=True):
            column.append(size)
        self._turns.append(1 if isinstance(row.prompt, str) else len(row.prompt))
        if number < FIRST:
            self._first.append((number, [prompt, *completions]))
        entry = (len(prompt) + max(sizes), -number, [prompt, *completions])
        if len(self._longest) < LONGEST:
            heapq.heappush(self._longest, entry)
        elif entry[:2] > self._longest[0][:2]:
            heapq.heapreplace(self._longest, entry)

    def lengths(self, folder: ModelFolder, *, chat: bool) -> RowLengths | None:
        """Tokens of every row; None where the tokenizer has no tokenizer.json.

        Args:
            folder: Of the policy.
            chat: Whether prompts go through the chat template.
        """
        if not (folder.tokenizer / TOKENIZER).is_file() or not self._turns:
            return None
        kept = dict([*self._first, *((-number, parts) for _, number, parts in self._longest)])
        chosen, characters = [], 0
        for number, parts in kept.items():
            if characters > MOST_CHARACTERS:
                break
            chosen.append(number)
            characters += sum(map(len, parts))
        tokens, turn = count_tokens([part for number in chosen for part in kept[number]], folder, chat=chat)
        ratio = sum(tokens) / max(1, characters)
        prompt, longest, total, completions = (np.array(column, dtype=np.int64) for column in self._sizes)
        prompt, longest, total = (np.ceil(column * ratio).astype(np.int64) for column in (prompt, longest, total))
        counted = iter(tokens)
        for number in chosen:
            start, *answers = islice(counted, len(kept[number]))
            prompt[number], longest[number], total[number] = start, max(answers), sum(answers)
        prompt += turn * np.array(self._turns, dtype=np.int64) + turn  # the last: the turn of the answer
        return RowLengths(prompt=prompt, longest=longest + 1, total=total + completions, completions=completions)


def texts(row: Any) -> tuple[str, Sequence[str]]:
    """Prompt and completions of a row, as plain text."""
    if isinstance(row, Pair):
        return _text(row.prompt), (row.chosen, row.rejected)
    if isinstance(row, Example):
        return _text(row.prompt), (row.completion,)
    assert isinstance(row, Ranked)
    return _text(row.prompt), row.responses


def _text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)
