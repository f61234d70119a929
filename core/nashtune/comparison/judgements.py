"""Every two policies' answers to the same prompt, judged in both orders; what is judged is kept and not asked again.

A journal file holds the comparisons of 32 prompts under one seed: those of all pairs of policies, so that a judge that
answers many requests at a time gets many, and a reward model scores each answer once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch

from nashtune.comparison.answers import Answer
from nashtune.data.prompts import PromptRow
from nashtune.errors import InputError
from nashtune.evaluation.both_orders import both_orders
from nashtune.interfaces import PreferenceOracle, RewardOracle
from nashtune.journal.store import Journal
from nashtune.oracles.checked import scored
from nashtune.oracles.compare import probabilities
from nashtune.oracles.probability import bradley_terry

PART = 32
"""Prompts of a journal file: as many are judged again after a kill."""
ANSWERS = "answers"
"""Column of a part: sha256 of the prompts and answers that were judged, and of the judge."""
Order = Literal["given", "swapped", "equal"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One judgement.

    Args:
        prompt: Number of the prompt, from 0.
        first: A policy.
        second: Another one, behind it in the comparison.
        seed: Of both.
        order: given: the first one's answer was shown first; swapped: the second one's was; equal: the answers are the
            same text, which counts 1/2 and was not asked.
        p: P(the first one's answer is better), whichever was shown first; NaN where the judge gave no answer.
    """

    prompt: int
    first: str
    second: str
    seed: int
    order: Order
    p: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """A reward of one answer, from judges that give rewards.

    Args:
        policy: Whose answer.
        seed: Of the policy.
        prompt: Number of the prompt.
        reward: In the judge's units.
        variance: Of the reward; None where the judge knows none.
    """

    policy: str
    seed: int
    prompt: int
    reward: float
    variance: float | None


TYPES: dict[str, pa.DataType] = {
    "prompt": pa.int32(),
    "first": pa.string(),
    "second": pa.string(),
    "seed": pa.int64(),
    "order": pa.string(),
    "p": pa.float64(),
    "policy": pa.string(),
    "reward": pa.float64(),
    "variance": pa.float64(),
    ANSWERS: pa.dictionary(pa.int32(), pa.string()),
}


def judge_all(
    judge: RewardOracle | PreferenceOracle,
    answers: Sequence[Answer],
    prompts: Sequence[PromptRow],
    folder: Path,
    say: Callable[[str], None],
    *,
    judged_by: str,
) -> tuple[list[Verdict], list[Score]]:
    """Ask about what was not judged yet; all judgements, and all rewards where the judge gives them.

    Args:
        judge: Prepared.
        answers: Of all policies, by policy, seed and prompt.
        prompts: As the policies answered them.
        folder: Of the comparison.
        say: Prints a line of progress.
        judged_by: What the judge's answers depend on, as sha256: another judge does not go on with its judgements.

    Raises:
        InputError: the judge cannot answer, or gives something else than probabilities or rewards.
    """
    journal = Journal(folder / "journal" / "judgements")
    seeds = list(dict.fromkeys(one.seed for one in answers))
    judged: list[Verdict] = []
    scores: list[Score] = []
    for number, seed in enumerate(seeds, start=1):
        texts: dict[str, list[str]] = {}
        for one in answers:
            if one.seed == seed:
                texts.setdefault(one.policy, []).append(one.text)
        for part, start in enumerate(range(0, len(prompts), PART)):
            chunk = range(start, min(start + PART, len(prompts)))
            name, own = f"judgements-{part:04d}", f"scores-{part:04d}"
            rewards: list[Score] = []
            about = _digest(prompts, texts, chunk, judged_by)
            if isinstance(judge, RewardOracle):
                if not journal.has(number, own):
                    _write(journal, number, own, about, Score, _score(judge, prompts, texts, chunk, seed))
                rewards = _read(journal, number, own, about, Score)
            if not journal.has(number, name):
                found = _judge(judge, prompts, texts, chunk, seed, rewards)
                _write(journal, number, name, about, Verdict, found)
                say(f"judged, seed {seed}: prompt {chunk[-1] + 1} of {len(prompts)}, {len(found)} judgements")
            judged += _read(journal, number, name, about, Verdict)
            scores += rewards
    return judged, scores


def _judge(
    judge: RewardOracle | PreferenceOracle,
    prompts: Sequence[PromptRow],
    texts: dict[str, list[str]],
    chunk: range,
    seed: int,
    scores: Sequence[Score],
) -> list[Verdict]:
    """One part; of a judge that gives rewards, from these."""
    pairs = list(combinations(texts, 2))
    asked = [(n, a, b) for n in chunk for a, b in pairs if texts[a][n] != texts[b][n]]
    equal = [
        Verdict(prompt=n, first=a, second=b, seed=seed, order="equal", p=0.5)
        for n in chunk
        for a, b in pairs
        if texts[a][n] == texts[b][n]
    ]
    if isinstance(judge, RewardOracle):
        reward = {(one.policy, one.prompt): one.reward for one in scores}
        of_first = torch.tensor([reward[a, n] for n, a, _ in asked], dtype=torch.float64)
        of_second = torch.tensor([reward[b, n] for n, _, b in asked], dtype=torch.float64)
        forward = bradley_terry(of_first, of_second)
        given, swapped = forward.tolist(), (1 - forward).tolist()
    else:
        about = [row.prompt for row in prompts]
        first, second = both_orders(about, texts, lambda *question: probabilities(judge, *question), asked)
        given, swapped = first.tolist(), second.tolist()
    found = [
        Verdict(prompt=n, first=a, second=b, seed=seed, order=order, p=p)
        for (n, a, b), forward, backward in zip(asked, given, swapped, strict=True)
        for order, p in _orders(forward, backward)
    ]
    return sorted([*found, *equal], key=lambda one: (one.prompt, pairs.index((one.first, one.second))))


def _orders(forward: float, backward: float) -> Iterator[tuple[Order, float]]:
    yield "given", forward
    yield "swapped", 1.0 - backward


def _score(
    judge: RewardOracle, prompts: Sequence[PromptRow], texts: dict[str, list[str]], chunk: range, seed: int
) -> list[Score]:
    """Rewards of all answers to these prompts, in one call: some judges compare the answers of a prompt."""
    asked = [(n, policy) for n in chunk for policy in texts]
    found = scored(judge, [prompts[n].prompt for n, _ in asked], [texts[policy][n] for n, policy in asked])
    rewards = found.mean.double().cpu().tolist()
    variances: list[Any] = [None] * len(asked) if found.variance is None else found.variance.double().cpu().tolist()
    return [
        Score(policy=policy, seed=seed, prompt=n, reward=reward, variance=variance)
        for (n, policy), reward, variance in zip(asked, rewards, variances, strict=True)
    ]


def _digest(prompts: Sequence[PromptRow], texts: dict[str, list[str]], chunk: range, judged_by: str) -> str:
    asked = [(prompts[n].prompt_text, [(policy, texts[policy][n]) for policy in texts]) for n in chunk]
    return hashlib.sha256(json.dumps([judged_by, asked]).encode()).hexdigest()


def _write(journal: Journal, round: int, name: str, about: str, kind: type[Any], rows: Sequence[Any]) -> None:
    columns = {
        field.name: pa.array([getattr(row, field.name) for row in rows], type=TYPES[field.name])
        for field in fields(kind)
    }
    journal.write_table(round, name, {**columns, ANSWERS: pa.array([about] * len(rows), type=TYPES[ANSWERS])})


def _read(journal: Journal, round: int, name: str, about: str, kind: type[Any]) -> list[Any]:
    """The rows of a part.

    Raises:
        InputError: they are of other answers.
    """
    columns = journal.read_table(
        round, name, {key: TYPES[key] for key in (*(one.name for one in fields(kind)), ANSWERS)}
    )
    if set(columns.pop(ANSWERS)) - {about}:
        raise InputError(
            f"{journal.folder}: {name} of round {round} judges other answers than those in {journal.folder.parent}, or "
            f"was made by another judge; delete {journal.folder}, so that everything is judged anew"
        )
    return [kind(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
