"""A journal part's completions, as judging and pairing look them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nashtune.interfaces import Completion
from nashtune.interfaces.schedule import Role
from nashtune.journal.records import read_completions
from nashtune.rounds.belong import check_completions
from nashtune.rounds.table import Table


@dataclass(frozen=True)
class Answers:
    """The completions of a part's prompts, by place of the prompt and k.

    Args:
        numbers: The prompts' numbers in the whole.
        completions: By (place, k).
        texts: The same, decoded.
        n: Completions of each prompt.
    """

    numbers: Sequence[int]
    completions: dict[tuple[int, int], Completion]
    texts: dict[tuple[int, int], str]
    n: int


def answers(table: Table, round: int, role: Role, part: int, numbers: Sequence[int]) -> Answers:
    """A part's completions from the journal."""
    found, texts = read_completions(table.journal, round, role, part)
    check_completions(table, round, role, part, numbers, found)
    place = {number: i for i, number in enumerate(numbers)}
    keys = [(place[one.prompt], one.k) for one in found]
    return Answers(
        numbers, dict(zip(keys, found, strict=True)), dict(zip(keys, texts, strict=True)), table.sampler.completions
    )
