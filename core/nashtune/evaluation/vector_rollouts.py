"""The inputs of a conformance vector over rollouts: one list of per-token numbers for each completion.

    {"policy": [[-0.5, -1.2], [-2.0]], "ref": [[-0.7, -1.0], [-1.5]], "score": [0.8, 0.35]}

Legend: S = completions, M = tokens of all of them, one completion after another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from nashtune.errors import InputError, nearest
from nashtune.interfaces import RolloutBatch


def read_rollouts(inputs: Mapping[str, Any], anchors: Sequence[str], where: str) -> tuple[RolloutBatch, Tensor]:
    """The batch in float64, and its leaf: the policy's per-token log-probs (M,).

    Args:
        inputs: `policy`, the anchors by name, and `score`.
        anchors: Names of the method's references.
        where: The place of `inputs`, for messages.

    Raises:
        InputError: a missing name, a wrong type, shape or range.
    """
    for name in ("policy", "score"):
        if name not in inputs:
            raise InputError(f"{where}: '{name}' is missing{nearest(name, inputs)}")
    policy = _lists(inputs["policy"], f"{where}.policy")
    lengths = [len(tokens) for tokens in policy]
    score = _numbers(inputs["score"], f"{where}.score", "one number per completion")
    if len(score) != len(policy):
        raise InputError(f"{where}.score: {len(score)} numbers, but policy has {len(policy)} completions")
    if not all(0 <= value <= 1 for value in score):
        raise InputError(f"{where}.score: {score}; the probability that the policy's completion wins is in [0, 1]")
    frozen = {}
    for name in anchors:
        if name in inputs:
            lists = _lists(inputs[name], f"{where}.{name}")
            found = [len(tokens) for tokens in lists]
            if found != lengths:
                raise InputError(f"{where}.{name}: completions of {found} tokens, but policy has {lengths}")
            frozen[name] = _joined(lists)
    leaf_M = _joined(policy).requires_grad_()
    lengths_S = torch.tensor(lengths)
    batch = RolloutBatch(
        token_logp=leaf_M,
        sequence=torch.arange(len(policy)).repeat_interleave(lengths_S),
        lengths=lengths_S,
        score=torch.tensor(score, dtype=torch.float64),
        anchors=frozen,
    )
    return batch, leaf_M


def per_completion(values_M: Tensor, lengths_S: Tensor) -> list[list[float]]:
    """Values of the tokens (M,) as one list per completion."""
    return [part.tolist() for part in torch.split(values_M, lengths_S.tolist())]


def _lists(value: Any, where: str) -> list[list[float]]:
    if not isinstance(value, list) or not value or not all(isinstance(tokens, list) and tokens for tokens in value):
        raise InputError(f"{where}: expected one list of per-token log-probs for each completion, such as [[-0.5, -1]]")
    return [_numbers(tokens, where, "one list of per-token log-probs for each completion") for tokens in value]


def _numbers(value: Any, where: str, form: str) -> list[float]:
    for number in value if isinstance(value, list) else [value]:
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"{where}: {number!r} is not a finite number; give {form}")
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list, {form}")
    return [float(number) for number in value]


def _joined(lists: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(list(chain.from_iterable(lists)), dtype=torch.float64)
