"""What a round's files must hold together: the completions of its prompts, verdicts on them, and pairs of them.

Each file proves itself by its sha256, and together they may still be of another run, or altered with care.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from nashtune.errors import InputError
from nashtune.interfaces.oracle import Judgement, Scored
from nashtune.interfaces.sampler import Completion
from nashtune.interfaces.schedule import Role
from nashtune.journal.records import (
    PAIRS,
    completions_name,
    judgements_name,
    read_judgements,
    read_scores,
    scores_name,
)
from nashtune.rounds.table import Table

Key = tuple[int, int]
"""(prompt, k)."""


def check_completions(
    table: Table, round: int, role: Role, part: int, numbers: Sequence[int], found: Sequence[Completion]
) -> None:
    """Look whether these are the completions of a part's prompts.

    Raises:
        InputError: one is missing or of another prompt, or has tokens that the policy does not know.
    """
    name = completions_name(role, part)
    if why := _other(_wanted(table, numbers), [(one.prompt, one.k) for one in found]):
        raise _altered(table, round, name, why)
    vocabulary = int(table.policy.loaded().get_input_embeddings().weight.shape[0])
    for one in found:
        if one.token_ids and max(one.token_ids) >= vocabulary:
            raise _altered(
                table,
                round,
                name,
                f"completion {one.k} of prompt {one.prompt} has token {max(one.token_ids)}, and the policy's "
                f"vocabulary has {vocabulary}",
            )


def part_scores(table: Table, round: int, part: int, numbers: Sequence[int]) -> list[Scored]:
    """A part's scores: one of each completion that there is.

    Raises:
        InputError: one is missing, or of a completion that there is not.
    """
    found = read_scores(table.journal, round, part)
    roles: tuple[Role, ...] = ("policy",)
    if table.pairing is None and not table.judged_by_scores:
        roles = ("policy", "opponent")
    wanted = [(role, prompt, k) for role in roles for prompt, k in _wanted(table, numbers)]
    if why := _other(wanted, [(one.role, one.prompt, one.k) for one in found]):
        raise _altered(table, round, scores_name(part), why)
    return found


def part_duels(table: Table, round: int, part: int, numbers: Sequence[int]) -> list[Judgement]:
    """A part's judgements of the policy's completions against an opponent's.

    Raises:
        InputError: one is missing, is there twice, or is of a completion that there is not.
    """
    found = read_judgements(table.journal, round, part)
    if table.oracle is not None:
        wanted = [(prompt, k, k) for prompt, k in _wanted(table, numbers)]
    else:  # a recording may say less of them, and compare others with one another
        n = range(table.sampler.completions)
        possible = {(prompt, i, j) for prompt in numbers for i in n for j in n}
        wanted = [key for key in {(one.prompt, one.first, one.second) for one in found} if key in possible]
    if why := _other(wanted, [(one.prompt, one.first, one.second) for one in found]):
        raise _altered(table, round, judgements_name(part), why)
    return found


def check_pairs(table: Table, round: int, keys: Sequence[tuple[int, int, int]], drawn: Iterable[Key]) -> None:
    """Look whether pairs (prompt, chosen, rejected) can be pairs of the completions that were drawn.

    Raises:
        InputError: one names a completion that there is not, or has the same on both sides, or a prompt has too many.
    """
    assert table.pairing is not None
    known = set(drawn)
    most = table.pairing.most(table.sampler.completions)[1]
    for prompt, chosen, rejected in keys:
        if chosen == rejected or not {(prompt, chosen), (prompt, rejected)} <= known:
            why = f"it pairs completions {chosen} and {rejected} of prompt {prompt}, and there are no such two"
            raise _altered(table, round, PAIRS, why)
    for prompt, count in Counter(prompt for prompt, _, _ in keys).items():
        if count > most:
            raise _altered(table, round, PAIRS, f"it has {count} pairs of prompt {prompt}, which can have {most}")


def other_pairs(table: Table, round: int) -> InputError:
    """The error that refuses pairs which the pairing does not make of the round's judgements."""
    return _altered(table, round, PAIRS, "its pairs are not those that the round's judgements make")


def _wanted(table: Table, numbers: Sequence[int]) -> list[Key]:
    return [(prompt, k) for prompt in numbers for k in range(table.sampler.completions)]


def _other(wanted: Sequence[tuple[object, ...]], found: Sequence[tuple[object, ...]]) -> str | None:
    """Where it is not the wanted ones that were found, each of them once: which are not."""
    missing, surplus = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
    if missing:
        return f"it has {len(found)} rows, {len(wanted)} belong there, and {_shown(missing)} is missing"
    return f"{_shown(surplus)} is there and does not belong there, or once more than it may be" if surplus else None


def _shown(keys: Counter[tuple[object, ...]]) -> str:
    key = next(iter(keys))
    names = ("prompt", "completion") if len(key) == 2 else ("role", "prompt", "completion")
    if len(key) == 3 and not isinstance(key[0], str):
        names = ("prompt", "completion", "against")
    return ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True))


def _altered(table: Table, round: int, name: str, why: str) -> InputError:
    return table.journal.altered(round, f"{name}.parquet", why)
