"""Phase `judge`: the oracle answers what the pairing asks. Phase `pair`: the answers become pairs.

Judging drives the pairing's generators and writes every answer down; pairing drives them again over what was written,
so that it needs no oracle.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nashtune.errors import InputError
from nashtune.interfaces import Comparisons, Completion, Paired, PreferenceOracle, RewardOracle
from nashtune.interfaces.schedule import Role
from nashtune.journal.records import (
    PAIRS,
    Judgement,
    Score,
    judgements_name,
    read_completions,
    read_judgements,
    write_judgements,
    write_pairs,
    write_scores,
)
from nashtune.pairing.drive import drive
from nashtune.rounds.table import Table, parts
from nashtune.samplers.recorded import RecordedSampler

Asked = list[tuple[int, int, int]]  # (place of the prompt in its part, first k, second k)


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
    place = {number: i for i, number in enumerate(numbers)}
    keys = [(place[one.prompt], one.k) for one in found]
    return Answers(
        numbers, dict(zip(keys, found, strict=True)), dict(zip(keys, texts, strict=True)), table.sampler.completions
    )


def judge(table: Table, round: int, numbers: Sequence[int]) -> None:
    """Judge what the journal does not hold yet."""
    missing = [
        (part, chunk)
        for part, chunk in enumerate(parts(numbers))
        if not table.journal.has(round, judgements_name(part))
    ]
    if not missing:
        return
    began, done = time.perf_counter(), 0
    table.progress.phase("judge", sum(len(chunk) for _, chunk in missing), "prompts")
    recorded = table.sampler if isinstance(table.sampler, RecordedSampler) else None
    for part, chunk in missing:
        known = recorded.judgements(round, part) if recorded is not None and table.oracle is None else None
        made = known if known is not None else _judge_part(table, round, part, chunk)
        write_judgements(table.journal, round, part, made)
        done += len(made)
        table.progress.advance(len(chunk))
    table.progress.done(f"{done} judgements, {time.perf_counter() - began:.1f} s")


def _judge_part(table: Table, round: int, part: int, numbers: Sequence[int]) -> list[Judgement]:
    policy = answers(table, round, "policy", part, numbers)
    opponent = policy if table.pairing is not None else answers(table, round, "opponent", part, numbers)
    compare = _compare(table, round, part, policy, opponent)
    asked: list[Judgement] = []

    def ask(wanted: Asked) -> list[float]:
        given = compare(wanted)
        asked.extend(
            Judgement(prompt=numbers[place], first=i, second=j, p=p)
            for (place, i, j), p in zip(wanted, given, strict=True)
        )
        return given

    if table.pairing is None:
        ask([(place, k, k) for place in range(len(numbers)) for k in range(policy.n)])
    else:
        drive(_generators(table, round, numbers, policy.n), ask)
    return asked


def _compare(table: Table, round: int, part: int, policy: Answers, opponent: Answers) -> Callable[[Asked], list[float]]:
    """P(first > second) of the oracle; two identical completions are never asked about."""
    oracle = table.oracle
    prompt = {place: table.prompts[number].prompt for place, number in enumerate(policy.numbers)}

    if isinstance(oracle, RewardOracle):
        mine = _scores(table, oracle, "policy", policy)
        theirs = mine if opponent is policy else _scores(table, oracle, "opponent", opponent)
        write_scores(table.journal, round, part, mine if opponent is policy else [*mine, *theirs])
        first, second = ({(one.prompt, one.k): one.mean for one in side} for side in (mine, theirs))
        number = policy.numbers
        return lambda asked: [_logistic(first[number[at], i] - second[number[at], j]) for at, i, j in asked]

    if not isinstance(oracle, PreferenceOracle):
        raise InputError(
            "spec.oracle: none, and the sampler brings no judgements; name one, such as --spec.oracle rules"
        )

    def compare(asked: Asked) -> list[float]:
        different = [
            at
            for at, (place, i, j) in enumerate(asked)
            if policy.completions[place, i].token_ids != opponent.completions[place, j].token_ids
        ]
        given = [0.5] * len(asked)
        if different:
            found = oracle.compare(
                [prompt[asked[at][0]] for at in different],
                [policy.texts[asked[at][0], asked[at][1]] for at in different],
                [opponent.texts[asked[at][0], asked[at][2]] for at in different],
            )
            for at, p in zip(different, found.tolist(), strict=True):
                given[at] = p
        return given

    return compare


def _scores(table: Table, oracle: RewardOracle, role: Role, side: Answers) -> list[Score]:
    """The oracle's rewards of a part's completions."""
    keys = sorted(side.texts)
    prompts = [table.prompts[side.numbers[place]].prompt for place, _ in keys]
    rewards = oracle.score(prompts, [side.texts[key] for key in keys])
    variances = rewards.variance.tolist() if rewards.variance is not None else [None] * len(keys)
    return [
        Score(prompt=side.numbers[place], role=role, k=k, mean=mean, variance=variance)
        for (place, k), mean, variance in zip(keys, rewards.mean.tolist(), variances, strict=True)
    ]


def pair(table: Table, round: int, numbers: Sequence[int]) -> None:
    """Turn the round's judgements into pairs; rollouts need none."""
    if table.pairing is None or table.journal.has(round, PAIRS):
        return
    rows: list[tuple[int, Paired]] = []
    dropped: Counter[str] = Counter()
    for part, chunk in enumerate(parts(numbers)):
        side = answers(table, round, "policy", part, chunk)
        known = {(one.prompt, one.first, one.second): one.p for one in read_judgements(table.journal, round, part)}

        def recall(
            asked: Asked, known: dict[tuple[int, int, int], float] = known, chunk: Sequence[int] = chunk
        ) -> list[float]:
            return [known[chunk[place], i, j] for place, i, j in asked]

        for place, made in enumerate(drive(_generators(table, round, chunk, side.n), recall)):
            dropped.update(made.dropped)
            for one in made.pairs:
                if side.completions[place, one.chosen].token_ids == side.completions[place, one.rejected].token_ids:
                    dropped["identical"] += 1  # a pair of equal texts has no gradient, whatever the label
                else:
                    rows.append((chunk[place], one))
    write_pairs(table.journal, round, rows, dropped)


def _recall(known: dict[tuple[int, int, int], float], numbers: Sequence[int]) -> Callable[[Asked], list[float]]:
    return lambda asked: [known[numbers[place], i, j] for place, i, j in asked]


def _generators(table: Table, round: int, numbers: Sequence[int], n: int) -> list[Comparisons]:
    assert table.pairing is not None
    return [table.pairing.compare(n, np.random.default_rng([table.seed, round, number])) for number in numbers]


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
