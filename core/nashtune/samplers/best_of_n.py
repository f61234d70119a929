"""Sampler `best_of_n`: the best of n draws of the policy, as the oracle scores them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from nashtune.errors import InputError
from nashtune.interfaces.sampler import Completion, Sampler, Surroundings
from nashtune.interfaces.schedule import Role
from nashtune.samplers.batching import numbers_of
from nashtune.samplers.policy import PolicySampler


class BestOfNSampler(Sampler):
    """Draws n times as many completions as asked for, and returns of each n the one that the oracle scores highest.

    Of equal scores the first wins. Completion k is the best of draws k*n ... k*n + n-1, which are those that the
    sampler `policy` makes with the same seed. `Completion.token_logp` is under the policy of a single draw, not under
    the distribution of the winner: their sum is what `best_of_n_theory.kl_estimate` takes.

    Args:
        n: Draws that each completion is the best of; 1 is the sampler `policy`. In papers 4 to 64, 16 most often.
        completions: Completions of each prompt and round, after the selection: n times as many are drawn and scored.
        max_new_tokens: Longest completion in tokens, EOS included.
        temperature: The distribution is softmax(logits / temperature); 0 takes the most likely token.
        top_p: Draws only from the smallest set of most likely tokens whose probability reaches this; 1 draws from all
            tokens. Without effect at temperature 0.
        stop: A completion also ends after the token that completes one of these strings. The string stays in it.
        batch_tokens: Largest size of a batch in tokens, rows times (longest prompt + max_new_tokens); a batch has at
            least one row.
    """

    selects: ClassVar[bool] = True
    placement: ClassVar[tuple[str, ...]] = ("batch_tokens",)

    def __init__(
        self,
        *,
        n: PositiveInt = 4,
        completions: PositiveInt = 8,
        max_new_tokens: PositiveInt = 256,
        temperature: NonNegativeFloat = 1.0,
        top_p: ClosedUnitInterval = 1.0,
        stop: list[str] | None = None,
        batch_tokens: PositiveInt = 16384,
    ) -> None:
        self.n = int(n)
        self.completions = int(completions)
        self.max_new_tokens = int(max_new_tokens)
        self._inner = PolicySampler(
            completions=self.n * self.completions,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=stop,
            batch_tokens=batch_tokens,
        )
        self._surroundings: Surroundings | None = None

    def attach(self, surroundings: Surroundings) -> None:
        """Remembers the policy and the oracle."""
        if surroundings.score is None:
            raise RuntimeError("sampler best_of_n needs Surroundings.score")
        self._inner.attach(surroundings)
        self._surroundings = surroundings

    def sync(self, version: str, role: Role = "policy") -> None:
        """Remembers the version."""
        self._inner.sync(version, role)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        seed: int,
        round: int = 0,
        indices: Sequence[int] | None = None,
        reference_weight: float | None = None,
    ) -> list[Completion]:
        """`n` winners of each prompt, ordered by prompt and k.

        Raises:
            InputError: as the sampler `policy`, or the oracle gives no finite score.
        """
        drawn = self._inner.sample(
            prompts, n * self.n, seed=seed, round=round, indices=indices, reference_weight=reference_weight
        )
        numbers = numbers_of(prompts, indices)
        winners = []
        for start in range(0, len(drawn), self.n):
            group = drawn[start : start + self.n]
            i = group[0].prompt
            winners.append(replace(self._best(prompts[i], numbers[i], group), k=group[0].k // self.n))
        return winners

    def _best(self, prompt: Sequence[int], number: int, group: Sequence[Completion]) -> Completion:
        assert self._surroundings is not None and self._surroundings.score is not None
        scores = self._surroundings.score(prompt, [completion.token_ids for completion in group])
        if len(scores) != len(group):
            raise ValueError(f"the oracle gave {len(scores)} scores for {len(group)} completions")
        if any(math.isnan(score) for score in scores):
            raise InputError(f"sampler: the oracle scored a completion of prompt {number} as nan")
        return group[scores.index(max(scores))]
