"""The inputs of a conformance vector over rollouts: one list of per-token numbers for each completion.

    {"policy": [[-0.5, -1.2], [-2.0]], "ref": [[-0.7, -1.0], [-1.5]], "score": [0.8, 0.35]}

Where completions are rewarded (reinforcement learning), further inputs say what was known before the update: `old`, the
log-probs under the policy that drew (`policy` where not given), the critic's `old_value` and now `value`, `group`,
`finished`, `variance` or, in place of score and variance, `members`: one list of scores for each member of an ensemble.

Legend: S = completions, M = tokens of all of them, one completion after another, K = members of an ensemble.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError, nearest
from nashtune.interfaces import RewardOracle, RolloutBatch
from nashtune.interfaces.oracle import Rewards

PER_TOKEN = ("old", "old_value", "value")
PER_COMPLETION = ("variance", "weight", "group", "finished", "old_value_end", "value_end")
REWARDED = ("members", *PER_TOKEN, *PER_COMPLETION)
"""Inputs beside `policy`, `score` and the anchors that a method with rewards accepts, whether it reads them or not."""
FORM = "one list of per-token numbers for each completion"


def read_rollouts(
    inputs: Mapping[str, Any], anchors: Sequence[str], oracle: RewardOracle | None, where: str
) -> tuple[RolloutBatch, dict[str, Tensor]]:
    """The batch in float64, and its leaves: the policy's per-token log-probs (M,), and the critic's values now.

    Args:
        inputs: `policy`, the anchors by name, `score`, and what `REWARDED` names.
        anchors: Names of the method's references.
        oracle: Makes rewards of members; None where a score is a probability against an opponent's completion.
        where: The place of `inputs`, for messages.

    Raises:
        InputError: a missing name, a wrong type, shape or range.
    """
    for name in ("policy", "score"):
        if name not in inputs and not (name == "score" and "members" in inputs):
            raise InputError(f"{where}: '{name}' is missing{nearest(name, inputs)}")
    lengths = [len(tokens) for tokens in _lists(inputs["policy"], f"{where}.policy")]
    tokens = {
        name: _flat(inputs[name], lengths, f"{where}.{name}")
        for name in ("policy", *anchors, *PER_TOKEN)
        if name in inputs
    }
    rewards = _rewards(inputs, oracle, len(lengths), where)
    leaves = {"policy": tokens["policy"].clone().requires_grad_()}
    columns = {
        name: _column(inputs[name], len(lengths), f"{where}.{name}") for name in PER_COMPLETION if name in inputs
    }
    if "old_value" in tokens:
        leaves["value"] = tokens.get("value", tokens["old_value"]).clone().requires_grad_()
    if "old_value_end" in columns:
        leaves["value_end"] = columns.get("value_end", columns["old_value_end"]).clone().requires_grad_()
    lengths_S = torch.tensor(lengths)
    batch = RolloutBatch(
        token_logp=leaves["policy"],
        sequence=torch.arange(len(lengths)).repeat_interleave(lengths_S),
        lengths=lengths_S,
        score=rewards.mean,
        anchors={name: tokens[name] for name in anchors if name in tokens},
        group=columns["group"].long() if "group" in columns else None,
        finished=columns["finished"].bool() if "finished" in columns else None,
        variance=rewards.variance,
        old=tokens.get("old", tokens["policy"]) if oracle is not None else None,
        old_value=tokens.get("old_value"),
        value=leaves.get("value"),
        old_value_end=columns.get("old_value_end"),
        value_end=leaves.get("value_end"),
        weight=columns.get("weight"),
    )
    return batch, leaves


def per_completion(values: Tensor, lengths_S: Tensor) -> list[float] | list[list[float]] | float:
    """Values of the tokens (M,) as one list per completion; anything else as it is."""
    if values.ndim == 1 and len(values) == int(lengths_S.sum()):
        return [part.tolist() for part in torch.split(values, lengths_S.tolist())]
    plain: list[float] | float = values.tolist()
    return plain


def _rewards(inputs: Mapping[str, Any], oracle: RewardOracle | None, count: int, where: str) -> Rewards:
    if "members" in inputs:
        both = [name for name in ("score", "variance") if name in inputs]
        if both:
            raise InputError(f"{where}: 'members' and '{both[0]}' together; the members give the {both[0]}")
        assert oracle is not None, "members are a known input only where completions are rewarded"
        rows = _lists(inputs["members"], f"{where}.members", "one list of scores for each member")
        members_SK = torch.stack([_column(row, count, f"{where}.members") for row in rows], dim=1)
        variance = members_SK.var(1) if len(rows) > 1 else None
        return oracle.tabular(Rewards(mean=members_SK.mean(1), variance=variance, members=members_SK))
    score_S = _column(inputs["score"], count, f"{where}.score")
    if oracle is None and bool(((score_S < 0) | (score_S > 1)).any()):
        raise InputError(
            f"{where}.score: {score_S.tolist()}; the probability that the policy's completion wins is in [0, 1]"
        )
    if "variance" not in inputs:
        return Rewards(mean=score_S)
    variance_S = _column(inputs["variance"], count, f"{where}.variance")
    if bool((variance_S < 0).any()):
        raise InputError(f"{where}.variance: {variance_S.tolist()}; a variance is >= 0")
    return Rewards(mean=score_S, variance=variance_S)


def _flat(value: Any, lengths: list[int], where: str) -> Tensor:
    lists = _lists(value, where)
    found = [len(tokens) for tokens in lists]
    if found != lengths:
        raise InputError(f"{where}: completions of {found} tokens, but policy has {lengths}")
    return torch.tensor(list(chain.from_iterable(lists)), dtype=torch.float64)


def _column(value: Any, count: int, where: str) -> Tensor:
    numbers = _numbers(value, where, "one number per completion")
    if len(numbers) != count:
        raise InputError(f"{where}: {len(numbers)} numbers, but policy has {count} completions")
    return torch.tensor(numbers, dtype=torch.float64)


def _lists(value: Any, where: str, form: str = FORM) -> list[list[float]]:
    if not isinstance(value, list) or not value or not all(isinstance(tokens, list) and tokens for tokens in value):
        raise InputError(f"{where}: expected {form}, such as [[-0.5, -1]]")
    return [_numbers(tokens, where, form) for tokens in value]


def _numbers(value: Any, where: str, form: str) -> list[float]:
    for number in value if isinstance(value, list) else [value]:
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"{where}: {number!r} is not a finite number; give {form}")
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list, {form}")
    return [float(number) for number in value]
