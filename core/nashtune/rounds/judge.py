"""Phase `judge`: the oracle answers what the pairing asks, and every answer is written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import cast

import torch

from nashtune.errors import InputError
from nashtune.interfaces import PreferenceOracle, RewardOracle
from nashtune.interfaces.oracle import Judgement, Scored
from nashtune.interfaces.schedule import Role
from nashtune.journal.records import (
    judgements_name,
    read_scores,
    scores_name,
    write_judgements,
    write_scores,
)
from nashtune.oracles.checked import compared, scored
from nashtune.oracles.probability import bradley_terry
from nashtune.pairing.drive import drive
from nashtune.rounds.answers import Answers, answers
from nashtune.rounds.pair import Asked, generators
from nashtune.rounds.table import Table, parts


def judge(table: Table, round: int, numbers: Sequence[int]) -> None:
    """Judge what the journal does not hold yet."""
    if table.judged_by_scores:
        _score(table, round, numbers)
        return
    missing = [
        (part, chunk)
        for part, chunk in enumerate(parts(numbers))
        if not table.journal.has(round, judgements_name(part))
    ]
    if not missing:
        return
    began, done = time.perf_counter(), 0
    table.progress.phase("judge", sum(len(chunk) for _, chunk in missing), "prompts")
    for part, chunk in missing:
        known = table.sampler.judgements(round, part) if table.oracle is None else None
        if known is not None:
            known = [one for one in known if max(one.first, one.second) < table.sampler.completions]
        if known is not None and not {one.prompt for one in known} <= set(chunk):
            raise InputError(
                f"spec.sampler.path: the judgements of round {round} are about other prompts; a replay needs the "
                "run's data, seed_everything, data.prompts_per_round and rounds"
            )
        made = known if known is not None else _judge_part(table, round, part, chunk)
        write_judgements(table.journal, round, part, made)
        done += len(made)
        table.progress.advance(len(chunk))
    table.progress.done(f"{done} judgements, {time.perf_counter() - began:.1f} s")


def _score(table: Table, round: int, numbers: Sequence[int]) -> None:
    """Rewards of the completions, one by one."""
    missing = [
        (part, chunk) for part, chunk in enumerate(parts(numbers)) if not table.journal.has(round, scores_name(part))
    ]
    if not missing:
        return
    began, done = time.perf_counter(), 0
    table.progress.phase("judge", sum(len(chunk) for _, chunk in missing), "prompts")
    for part, chunk in missing:
        known = table.sampler.scores(round, part) if table.oracle is None else None
        made = (
            _recorded(table, known, round, chunk) if known is not None else _scores_of_part(table, round, part, chunk)
        )
        write_scores(table.journal, round, part, made)
        done += len(made)
        table.progress.advance(len(chunk))
    table.progress.done(f"{done} rewards, {time.perf_counter() - began:.1f} s")


def _recorded(table: Table, known: list[Scored], round: int, numbers: Sequence[int]) -> list[Scored]:
    """Rewards of a recording, of the completions that are replayed."""
    n = table.sampler.completions
    kept = [one for one in known if one.role == "policy" and one.k < n]
    if {(one.prompt, one.k) for one in kept} != {(number, k) for number in numbers for k in range(n)}:
        raise InputError(
            f"spec.sampler.path: the rewards of round {round} are of other prompts or of fewer completions; a replay "
            "needs the run's data, seed_everything, data.prompts_per_round and schedule, and at most its "
            "spec.sampler.completions"
        )
    return kept


def _scores_of_part(table: Table, round: int, part: int, numbers: Sequence[int]) -> list[Scored]:
    if not isinstance(table.oracle, RewardOracle):
        raise InputError(
            "spec.oracle: this schedule trains on rewards, and the oracle gives none; name one that scores, such as "
            "--spec.oracle reward_model --spec.oracle.path FOLDER"
        )
    return _scores(table, table.oracle, "policy", answers(table, round, "policy", part, numbers))


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
        drive(generators(table, round, numbers, policy.n), ask)
    return asked


def _compare(table: Table, round: int, part: int, policy: Answers, opponent: Answers) -> Callable[[Asked], list[float]]:
    """P(first > second) of the oracle; two identical completions are never asked about."""
    oracle = table.oracle
    prompt = {place: table.prompts[number].prompt for place, number in enumerate(policy.numbers)}

    if isinstance(oracle, RewardOracle):
        against: Role = "policy" if opponent is policy else "opponent"
        sides: dict[Role, Answers] = {"policy": policy, against: opponent}
        if not table.journal.has(round, scores_name(part)):
            made = [one for role, side in sides.items() for one in _scores(table, oracle, role, side)]
            write_scores(table.journal, round, part, made)
        mean = {(one.role, one.prompt, one.k): one.mean for one in read_scores(table.journal, round, part)}
        number = policy.numbers

        def from_scores(asked: Asked) -> list[float]:
            first = torch.tensor([mean["policy", number[at], i] for at, i, _ in asked], dtype=torch.float64)
            second = torch.tensor([mean[against, number[at], j] for at, _, j in asked], dtype=torch.float64)
            return cast("list[float]", bradley_terry(first, second).tolist())

        return from_scores

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
            found = compared(
                oracle,
                [prompt[asked[at][0]] for at in different],
                [policy.texts[asked[at][0], asked[at][1]] for at in different],
                [opponent.texts[asked[at][0], asked[at][2]] for at in different],
            )
            for at, p in zip(different, found.tolist(), strict=True):
                given[at] = p
        return given

    return compare


def _scores(table: Table, oracle: RewardOracle, role: Role, side: Answers) -> list[Scored]:
    """The oracle's rewards of a part's completions."""
    keys = sorted(side.texts)
    prompts = [table.prompts[side.numbers[place]].prompt for place, _ in keys]
    rewards = scored(oracle, prompts, [side.texts[key] for key in keys])
    variances = rewards.variance.tolist() if rewards.variance is not None else [None] * len(keys)
    members = rewards.members.tolist() if rewards.members is not None else [[]] * len(keys)
    return [
        Scored(prompt=side.numbers[place], role=role, k=k, mean=mean, variance=variance, members=tuple(each))
        for (place, k), mean, variance, each in zip(keys, rewards.mean.tolist(), variances, members, strict=True)
    ]
