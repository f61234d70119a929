"""Phase `judge`: the oracle answers what the pairing asks, and every answer is written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from nashtune.errors import InputError
from nashtune.interfaces import PreferenceOracle, RewardOracle
from nashtune.interfaces.oracle import Judgement, Scored
from nashtune.interfaces.schedule import Role
from nashtune.journal.records import (
    judgements_name,
    scores_name,
    write_judgements,
    write_scores,
)
from nashtune.oracles.checked import compared, scored
from nashtune.oracles.probability import bradley_terry
from nashtune.pairing.drive import drive
from nashtune.ranks import everyone, most, of_this_rank, together
from nashtune.rounds.answers import Answers, answers
from nashtune.rounds.belong import part_scores
from nashtune.rounds.lost import require
from nashtune.rounds.pair import Asked, generators
from nashtune.rounds.parts import own_parts, parts
from nashtune.rounds.table import Table


def judge(table: Table, round: int, numbers: Sequence[int], *, complete: bool) -> None:
    """Judge what the journal does not hold yet; each rank its parts. `complete`: what is missing is an error."""
    names = [scores_name] if table.judged_by_scores else [judgements_name]
    if not table.judged_by_scores and isinstance(table.oracle, RewardOracle):
        names.append(scores_name)  # which the judgements come from, and the variances of the pairs
    if complete:
        count = len(parts(table, round, numbers))
        require(table, round, [name(part) for name in names for part in range(count)])
        return
    finished = set(table.journal.names(round))
    missing = [
        (part, chunk)
        for part, chunk in own_parts(table, round, numbers)
        if not finished.issuperset(name(part) for name in names)
    ]
    if not most(len(missing)):
        return
    began, done = time.perf_counter(), 0
    table.progress.phase("judge", sum(len(chunk) for _, chunk in missing), of_this_rank("prompts"))
    with together("judge"):
        replayed = _replayed(table, round, numbers) if table.oracle is None else None
        for part, chunk in missing:
            if table.judged_by_scores:
                done += _score_part(table, round, part, chunk, cast("list[Scored] | None", replayed))
            else:
                done += _compare_part(table, round, part, chunk, cast("list[Judgement] | None", replayed))
            table.progress.advance(len(chunk))
    what = "rewards" if table.judged_by_scores else "judgements"
    table.progress.done(f"{sum(everyone(done))} {what}, {time.perf_counter() - began:.1f} s")


def _replayed(table: Table, round: int, numbers: Sequence[int]) -> list[Judgement] | list[Scored] | None:
    """What a recording says of the round, whatever its parts were; None where it says nothing."""
    ask = table.sampler.scores if table.judged_by_scores else table.sampler.judgements
    found: list[Any] = []
    part = 0
    while (known := ask(round, part)) is not None:
        found += known
        part += 1
    if not part:
        return None
    if not table.judged_by_scores and not {one.prompt for one in found} <= set(numbers):
        raise InputError(
            f"spec.sampler.path: the judgements of round {round} are about other prompts; a replay needs the "
            "run's data, seed_everything, data.prompts_per_round and rounds"
        )
    return found


def _compare_part(table: Table, round: int, part: int, numbers: Sequence[int], replayed: list[Judgement] | None) -> int:
    if replayed is None:
        made = _judge_part(table, round, part, numbers)
    else:
        about, n = set(numbers), table.sampler.completions
        made = [one for one in replayed if one.prompt in about and max(one.first, one.second) < n]
    table.ledger.write(round, judgements_name(part))
    write_judgements(table.journal, round, part, made)
    return len(made)


def _score_part(table: Table, round: int, part: int, numbers: Sequence[int], replayed: list[Scored] | None) -> int:
    """Rewards of the completions, one by one."""
    made = (
        _scores_of_part(table, round, part, numbers) if replayed is None else _recorded(table, replayed, round, numbers)
    )
    table.ledger.write(round, scores_name(part))
    write_scores(table.journal, round, part, made)
    return len(made)


def _recorded(table: Table, known: list[Scored], round: int, numbers: Sequence[int]) -> list[Scored]:
    """Rewards of a recording, of the completions that are replayed."""
    n, about = table.sampler.completions, set(numbers)
    kept = [one for one in known if one.role == "policy" and one.k < n and one.prompt in about]
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
            table.ledger.write(round, scores_name(part))
            write_scores(table.journal, round, part, made)
        mean = {(one.role, one.prompt, one.k): one.mean for one in part_scores(table, round, part, policy.numbers)}
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
