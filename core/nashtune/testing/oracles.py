"""The contract of an oracle: its answers are numbers of the right range that depend on the question alone.

Legend: N = comparisons or completions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import PreferenceOracle, Prompt, RewardOracle, Rewards
from nashtune.oracles.checked import compared, scored
from nashtune.testing.contract import ContractError, require, running
from nashtune.testing.declared import check_class, check_names
from nashtune.testing.subject import Subject

TEXTS = (
    "Yes, warm bread is lovely.",
    "No.",
    "I would say so, on the whole, though not every day!",
    "Cold soup, cold soup, cold soup.",
)
PROMPTS = ("Do you like warm bread?", "What did they have for lunch?")
ANSWERS = "oracle-answers"
TALKS = "conversations"
ANTISYMMETRY = 1e-6
BATCHES = 1e-4
"""How far a number may be off in another batch: what float32 makes of another padding."""


@dataclass(frozen=True)
class _Questions:
    """Two prompts: one with every text, one with all but the first, so that their means differ."""

    texts: tuple[str, ...]

    @property
    def prompts(self) -> list[Prompt]:
        return [*(PROMPTS[0] for _ in self.texts), *(PROMPTS[1] for _ in self.texts[1:])]

    @property
    def completions(self) -> list[str]:
        return [*self.texts, *self.texts[1:]]

    def pairs(self) -> tuple[list[Prompt], list[str], list[str]]:
        """Every text of a prompt against every other one."""
        met = [(prompt, a, b) for prompt in PROMPTS for a, b in permutations(self.texts, 2)]
        return [one[0] for one in met], [one[1] for one in met], [one[2] for one in met]


def check(subject: Subject, options: Mapping[str, Any], texts: Sequence[str] | None) -> None:
    """Check an oracle.

    Args:
        subject: The oracle.
        options: Of its constructor.
        texts: Completions that it can judge; None for a few sentences.

    Raises:
        ContractError: it breaks a rule.
    """
    check_class(subject)
    for name in ("model_argument", "placement"):
        check_names(subject, "oracle-declares", name)
    asked = _Questions(tuple(dict.fromkeys(texts or TEXTS)))
    require(len(asked.texts) > 2, subject.who, "options", f"{len(asked.texts)} texts to judge; give at least three")
    placeholder = bool(subject.cls.chosen_by_run)  # type: ignore[attr-defined]
    for chosen in [{}] if placeholder else _given(subject, options):
        oracle, who = subject.make(chosen), subject.named(chosen)
        if placeholder:
            _refuses(oracle, asked, who)
            continue
        with running(who, "prepare"):
            oracle.prepare()
        if isinstance(oracle, RewardOracle):
            _rewards(oracle, asked, who)
        if isinstance(oracle, PreferenceOracle):
            _preferences(oracle, asked, who)
        counts = oracle.counts()
        good = all(isinstance(name, str) and isinstance(n, int) and n >= 0 for name, n in counts.items())
        require(good, who, "oracle-counts", f"counts gave {dict(counts)!r}")


def _given(subject: Subject, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of specs, only options that are complete: folders of models are named by the run."""
    if options:
        return subject.given(options)
    found = []
    for chosen in subject.given(options):
        try:
            oracle = subject.make(chosen)
            oracle.prepare()
        except (InputError, ContractError) as error:
            refused = error
            continue
        found.append(chosen)
    require(
        bool(found),
        subject.who,
        "options",
        f"no spec gives options that it can work with ({refused if not found else ''})",
    )
    return found


def _refuses(oracle: Any, asked: _Questions, who: str) -> None:
    """What stands for an oracle that the run must choose."""
    calls = [("prepare", oracle.prepare)]
    if isinstance(oracle, RewardOracle):
        calls.append(("score", lambda: oracle.score(asked.prompts, asked.completions)))
    else:
        calls.append(("compare", lambda: oracle.compare(*asked.pairs())))
    for name, call in calls:
        try:
            call()
        except InputError:
            continue
        raise ContractError(who, "oracle-placeholder", f"chosen_by_run is declared, and {name} works")


def _preferences(oracle: PreferenceOracle, asked: _Questions, who: str) -> None:
    prompts, first, second = asked.pairs()

    def ask(
        prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], what: str = "", rule: str = ANSWERS
    ) -> Tensor:
        with running(who, f"compare of {what or f'{len(first)} pairs'}", rule):
            found = compared(oracle, prompts, first, second)
        require(not found.requires_grad, who, ANSWERS, "its answers carry a gradient")
        return found

    p_N, turned_N = ask(prompts, first, second), ask(prompts, second, first)
    total_N = p_N + turned_N
    answered = p_N.isnan() == turned_N.isnan()
    wrong = torch.nonzero(((total_N - 1.0).abs() > ANTISYMMETRY) | ~answered).flatten().tolist()
    for at in wrong[:1]:
        turned = f"and the other way round {float(turned_N[at]):.9g}"
        said = f"P({first[at]!r} > {second[at]!r}) is {float(p_N[at]):.9g} {turned}"
        raise ContractError(who, "oracle-antisymmetric", said)
    order = [*range(1, len(first), 2), *range(0, len(first), 2)]
    mixed_N = ask(*([column[i] for i in order] for column in (prompts, first, second)))  # type: ignore[arg-type]
    _same(mixed_N, p_N[order], who, "in another order")
    for at in (0, len(first) - 1):
        _same(ask([prompts[at]], [first[at]], [second[at]]), p_N[at : at + 1], who, f"{first[at]!r} alone")
    ask([_talk(prompt) for prompt in prompts[:2]], first[:2], second[:2], TALKS, "oracle-prompts")


def _rewards(oracle: RewardOracle, asked: _Questions, who: str) -> None:
    def ask(prompts: Sequence[Prompt], completions: Sequence[str], what: str = "", rule: str = ANSWERS) -> Rewards:
        with running(who, f"score of {what or f'{len(completions)} completions'}", rule):
            found = scored(oracle, prompts, completions)
        for name, value in _numbers(found).items():
            require(not value.requires_grad, who, ANSWERS, f"its {name} carries a gradient")
        return found

    prompts, completions = asked.prompts, asked.completions
    whole = ask(prompts, completions)
    gives = whole.variance is not None
    said = f"gives_variance is {oracle.gives_variance}, and score gave {'a' if gives else 'no'} variance"
    require(gives == oracle.gives_variance, who, "oracle-declares", said)
    _same_rewards(ask(prompts, completions), whole, range(len(prompts)), who, "asked once more")
    order = [*range(1, len(prompts), 2), *range(0, len(prompts), 2)]
    _same_rewards(
        ask([prompts[i] for i in order], [completions[i] for i in order]), whole, order, who, "in another order"
    )
    size = len(asked.texts)
    groups = [range(size), range(size, 2 * size - 1)] if oracle.counts_groups else [range(i, i + 1) for i in (0, size)]
    for group in groups:
        what = "one prompt's completions alone" if oracle.counts_groups else f"{completions[group[0]]!r} alone"
        found = ask([prompts[i] for i in group], [completions[i] for i in group])
        _same_rewards(found, whole, group, who, what)
    ask([_talk(prompt) for prompt in prompts[:size]], completions[:size], TALKS, "oracle-prompts")


def _same_rewards(found: Rewards, whole: Rewards, index: Sequence[int], who: str, what: str) -> None:
    for name, value in _numbers(found).items():
        _same(value, _numbers(whole)[name][list(index)], who, f"{what} (its {name})")


def _numbers(rewards: Rewards) -> dict[str, Tensor]:
    parts = {"mean": rewards.mean, "variance": rewards.variance, "members": rewards.members}
    return {name: value for name, value in parts.items() if value is not None}


def _same(found: Tensor, wanted: Tensor, who: str, what: str) -> None:
    found, wanted = found.double(), wanted.double()
    gap = (found - wanted).abs().nan_to_num(nan=0.0).max() if len(found) else torch.zeros(())
    silent = torch.equal(found.isnan(), wanted.isnan())
    scale = max(1.0, float(wanted.abs().nan_to_num(nan=0.0).max()))
    said = f"{what} it says {found.flatten()[:3].tolist()}, and among others {wanted.flatten()[:3].tolist()}"
    require(silent and float(gap) <= BATCHES * scale, who, "oracle-batches", said)


def _talk(prompt: Prompt) -> Prompt:
    return [{"role": "user", "content": str(prompt)}]
