"""Asks a judge about pairs of answers in both orders, because judges favour a position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nashtune.errors import InputError
from nashtune.interfaces.oracle import Prompt

if TYPE_CHECKING:
    from torch import Tensor

Probabilities = Callable[[Sequence[Prompt], Sequence[str], Sequence[str]], "NDArray[np.float64] | Tensor"]
"""(prompts, first, second) -> P(first[i] > second[i] | prompts[i]), (N,); NaN where there was no usable answer."""


def both_orders(
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[str]],
    probabilities: Probabilities,
    asked: Sequence[tuple[int, str, str]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(a > b) and P(b > a) of each comparison, from one call.

    Args:
        prompts: All prompts.
        answers: For each policy its answer to each prompt.
        probabilities: Judges pairs of answers.
        asked: (prompt, a, b) of each comparison (K).

    Returns:
        Two arrays (K).

    Raises:
        InputError: the judge's answers are not probabilities, or not as many as asked for.
    """
    if not asked:
        return np.empty(0), np.empty(0)
    first = [answers[a][n] for n, a, _ in asked]
    second = [answers[b][n] for n, _, b in asked]
    about = [prompts[n] for n, _, _ in asked]
    given = np.array(probabilities(about + about, first + second, second + first).tolist(), dtype=np.float64)
    if given.shape != (2 * len(asked),):
        raise InputError(f"the oracle gave {given.shape} probabilities for {2 * len(asked)} comparisons")
    outside = np.flatnonzero((given < 0) | (given > 1))
    if len(outside):
        n = asked[outside[0] % len(asked)][0]
        raise InputError(f"the oracle gave P = {given[outside[0]]} on prompt {n}; a probability is in [0, 1]")
    return given[: len(asked)], given[len(asked) :]
