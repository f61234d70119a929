"""Sampler: draws completions, token ids in and token ids out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from nashtune.interfaces.oracle import Judgement, Scored
    from nashtune.interfaces.policy import Policy
    from nashtune.interfaces.schedule import Role

Score = Callable[[Sequence[int], Sequence[Sequence[int]]], list[float]]
"""Prompt ids and the ids of its completions -> one number each, higher is better."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled completion.

    Args:
        prompt: Index of the prompt in the request.
        k: Which of the prompt's completions this is.
        token_ids: Sampled tokens, EOS included when it was drawn.
        token_logp: Log-prob of each token under the distribution it was drawn from (after temperature and top-p,
            renormalised), in nats; empty where a recorded file does not say.
        finish: "stop" when EOS or a stop string was drawn, "length" when the token limit was reached.
        kept_mass: With top-p, the probability mass of the tokens that could be drawn, for each token; empty without.
        version: The weights it was drawn from, as `sync` was told.
    """

    prompt: int
    k: int
    token_ids: tuple[int, ...]
    token_logp: tuple[float, ...]
    finish: Literal["stop", "length"]
    kept_mass: tuple[float, ...] = ()
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a sampler may use besides prompts.

    Args:
        policy: The live policy; its weights change between calls.
        tokenizer: The policy's (transformers' PreTrainedTokenizerBase).
        start_logits: Next-token logits under the starting weights, for samplers that mix: the model to call, and a
            context manager factory under which it is the starting policy. None where no sampler mixes.
        score: The spec's oracle on single completions, for samplers that select; None without an oracle.
        run_dir: Folder for what a sampler must write, such as weights for a server.
    """

    policy: Policy
    tokenizer: Any
    start_logits: tuple[Any, Callable[[], Any]] | None = None
    score: Score | None = None
    run_dir: str = ""


class Sampler(ABC):
    """Draws completions from a policy.

    Attributes:
        mixes: Whether `sample` honours `reference_weight`, so that the starting policy must be at hand.
        selects: Whether it needs `Surroundings.score`.
        replays: Whether it may bring the judgements of its completions too, so that no oracle is needed.
        placement: Arguments that say where it runs and how patiently: a run that is taken up again may change them.
        completions: Completions of each prompt and round, set by the constructor's argument of that name.
        max_new_tokens: Longest completion in tokens, set likewise.
    """

    mixes: ClassVar[bool] = False
    selects: ClassVar[bool] = False
    replays: ClassVar[bool] = False
    placement: ClassVar[tuple[str, ...]] = ()
    completions: int
    max_new_tokens: int

    def prepare(self) -> None:
        """Called once before the policy's weights are loaded: look at files, packages and endpoints here.

        Raises:
            InputError: the sampler cannot work.
        """
        return None

    @abstractmethod
    def attach(self, surroundings: Surroundings) -> None:
        """Called once when the policy is loaded, before `sync`."""

    def sync(self, version: str, role: Role = "policy") -> None:
        """The live weights are now `version`, and what is drawn next is `role`'s.

        An engine with weights of its own gets them here, and proves it.

        Raises:
            InputError: the engine cannot be reached, or does not answer as the live weights do.
        """
        return None

    def judgements(self, round: int, part: int) -> list[Judgement] | None:
        """What was said of a part of a round's completions when they were recorded; None where an oracle must judge.

        Args:
            round: From 1.
            part: Number of the part, as the journal counts it.
        """
        return None

    def scores(self, round: int, part: int) -> list[Scored] | None:
        """What a reward oracle said of a part of a round's completions when they were recorded; as `judgements`."""
        return None

    @abstractmethod
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
        """`n` completions of each prompt (token ids), ordered by prompt and k.

        The noise of a completion depends on (seed, round, prompt index, k) alone: not on its batch-mates, nor on how
        the prompts are split over ranks. A rank that holds a part of the prompts gives their numbers in the whole as
        `indices`; without it, prompt i has number i. `Completion.prompt` counts within `prompts` either way.

        Args:
            prompts: Token ids.
            n: Completions of each.
            seed: The run's.
            round: Of the schedule, from 1; 0 outside of a game.
            indices: Numbers of the prompts in the whole data set.
            reference_weight: Weight of the starting policy in the mixture to draw from; None leaves it to the sampler.
                A sampler that does not mix refuses anything but None and 0.
        """
