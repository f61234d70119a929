"""Sampler: draws completions, token ids in and token ids out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled completion.

    Args:
        prompt: Index of the prompt in the request.
        k: Which of the prompt's completions this is.
        token_ids: Sampled tokens, EOS included when it was drawn.
        token_logp: Log-prob of each token under the distribution it was drawn from, in nats.
        finish: "stop" when EOS was drawn, "length" when the token limit was reached.
    """

    prompt: int
    k: int
    token_ids: tuple[int, ...]
    token_logp: tuple[float, ...]
    finish: Literal["stop", "length"]


class Sampler(ABC):
    """Draws completions from a policy."""

    @abstractmethod
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        seed: int,
        round: int = 0,
        indices: Sequence[int] | None = None,
    ) -> list[Completion]:
        """`n` completions of each prompt (token ids), ordered by prompt and k.

        The noise of a completion depends on (seed, round, prompt index, k) alone: not on its batch-mates, nor on how
        the prompts are split over ranks. A rank that holds a part of the prompts gives their numbers in the whole as
        `indices`; without it, prompt i has number i. `Completion.prompt` counts within `prompts` either way.
        """
