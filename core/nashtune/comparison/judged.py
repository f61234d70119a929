"""What a comparison hands over to be rated: who beat whom, how long the answers were, how far the policies have moved.

Legend: M = policies, C = M (M - 1) / 2 pairs of policies, S = seeds, N = prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
START = "start"
"""The policy before training, whose rating is fixed; named as in `nashtune.interfaces.schedule`, without its torch."""

K1 = "k1"
"""log policy(y|x) - log start(y|x) of an answer: of either sign."""
PER_TOKEN = "exact per token"
"""KL of the two distributions of each next token, exact over the vocabulary, summed over the tokens of an answer: never
below 0, and exact for answers of one token. Its mean is that of k1, its variance as a rule much smaller; not always, as
k1 is the same for all answers of a policy that is the start restricted to some of them.
Source: Amini, Vieira and Cotterell, arXiv:2504.10637, its Rao-Blackwellised estimator."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Every policy's answers against every other's, on the same prompts and for each seed.

    Args:
        policies: Names (M), at least two, all different.
        p: P(first's answer > second's answer) (C, S, N), the mean of both orders, ties 1/2; pairs of policies in the
            order of `itertools.combinations(policies, 2)`; NaN where one of the two gave no usable answer.
        tokens: Length of each completion in tokens (M, S, N); NaN where there is none.
        kl: An unbiased estimate of KL(policy || start) of whole answers, as far as they were drawn, from each of the
            policy's own answers, in nats (M, S, N); NaN where there is none, None where nobody measured it.
        reward: Of each answer (M, S, N), NaN where there is none; None where the judge gives no rewards.
        kl_estimator: What `kl` is: `K1` or `PER_TOKEN`.
        absent: Whether there is no such policy under a seed (M, S), so that nobody asked for its answers; None: all
            are there.
    """

    policies: tuple[str, ...]
    p: Floats
    tokens: Floats
    kl: Floats | None = None
    reward: Floats | None = None
    kl_estimator: str = K1
    absent: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Refuse what no comparison can hand over.

        Raises:
            ValueError: the arrays do not fit each other, or a probability is none.
        """
        m = len(self.policies)
        if m < 2 or len(set(self.policies)) < m:
            raise ValueError(f"a comparison needs two policies or more, of different names; found {self.policies}")
        if self.p.ndim != 3 or self.p.shape[0] != m * (m - 1) // 2 or not self.p.size:
            raise ValueError(f"p has shape {self.p.shape}, expected ({m * (m - 1) // 2}, seeds, prompts), none empty")
        _, seeds, prompts = self.p.shape
        expected = {"tokens": (m, seeds, prompts), "kl": (m, seeds, prompts), "reward": (m, seeds, prompts)}
        for name, shape in expected.items():
            found = getattr(self, name)
            if found is not None and found.shape != shape:
                raise ValueError(f"{name} has shape {found.shape}, expected {shape}")
        if ((self.p < 0) | (self.p > 1)).any():  # NaN compares false
            raise ValueError("p holds numbers outside 0 to 1")

    @property
    def unanswered(self) -> NDArray[np.bool_]:
        """Whether a pair of answers has no verdict though both policies are there (C, S, N)."""
        return np.isnan(self.p) & self.asked

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Whether both policies of a pair are there (C, S, N)."""
        if self.absent is None:
            return np.ones(self.p.shape, dtype=bool)
        there = ~self.absent
        pairs = [there[i] & there[j] for i, j in combinations(range(len(self.policies)), 2)]
        return np.broadcast_to(np.array(pairs)[:, :, None], self.p.shape)

    @property
    def anchor(self) -> int:
        """Number of the policy that others are rated against: `start`, or the first where there is none."""
        return self.policies.index(START) if START in self.policies else 0

    @property
    def hard(self) -> Judged:
        """The same with certain verdicts: 1 above 1/2, 0 below, 1/2 for ties."""
        return replace(self, p=np.where(np.isnan(self.p), np.nan, 0.5 + 0.5 * np.sign(np.round(self.p - 0.5, 9))))

    def only(self, numbers: Sequence[int]) -> Judged:
        """The same without the other policies.

        Args:
            numbers: Of the policies to keep, rising, at least two.
        """
        kept, rows = set(numbers), list(numbers)
        pairs = [c for c, pair in enumerate(combinations(range(len(self.policies)), 2)) if kept.issuperset(pair)]
        return Judged(
            policies=tuple(self.policies[i] for i in rows),
            p=self.p[pairs],
            tokens=self.tokens[rows],
            kl=None if self.kl is None else self.kl[rows],
            reward=None if self.reward is None else self.reward[rows],
            kl_estimator=self.kl_estimator,
            absent=None if self.absent is None else self.absent[rows],
        )
