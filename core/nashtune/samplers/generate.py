"""What samplers of a live model share: arguments, batches, noise, and what becomes a completion."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from nashtune.errors import InputError
from nashtune.interfaces.sampler import Completion, Sampler, Surroundings
from nashtune.interfaces.schedule import Role
from nashtune.models.mode import frozen_mode
from nashtune.models.policy import HFPolicy
from nashtune.samplers.batching import batches, check_fits, numbers_of
from nashtune.samplers.decode import Settings, decode
from nashtune.samplers.decode_casts import kept_casts
from nashtune.samplers.decode_generate import decode_generate
from nashtune.samplers.decode_model import Runner, Start
from nashtune.samplers.decode_support import obstacle
from nashtune.samplers.noise import stream_seed, uniforms
from nashtune.samplers.packed_weights import packed_weights
from nashtune.samplers.stops import Ends, check_stop, eos_tokens

Request = tuple[int, int]  # (prompt, k)


class LiveSampler(Sampler):
    """Decodes the live policy, row by row with a random stream of its own.

    Nothing but temperature and top-p shapes the distribution: what the model folder's generation settings say (top-k,
    repetition penalty ...) is set aside, for it would make the returned log-probs those of another policy.
    `Completion.token_logp` is under the distribution that was drawn from: after temperature and top-p, renormalised.
    Adding log `Completion.kept_mass` gives the log-prob before top-p.

    Args:
        completions: Completions of each prompt and round.
        max_new_tokens: Longest completion in tokens, EOS included.
        temperature: The distribution is softmax(logits / temperature); 0 takes the most likely token.
        top_p: Draws only from the smallest set of most likely tokens whose probability reaches this; 1 draws from all
            tokens, as the theory of every method here asks for. Without effect at temperature 0.
        stop: A completion also ends after the token that completes one of these strings. The string stays in it.
        batch_tokens: Largest size of a batch in tokens, rows times (longest prompt + max_new_tokens); a batch has at
            least one row.
    """

    placement: ClassVar[tuple[str, ...]] = ("batch_tokens",)

    def __init__(
        self,
        *,
        completions: PositiveInt = 8,
        max_new_tokens: PositiveInt = 256,
        temperature: NonNegativeFloat = 1.0,
        top_p: ClosedUnitInterval = 1.0,
        stop: list[str] | None = None,
        batch_tokens: PositiveInt = 16384,
    ) -> None:
        self.completions = int(completions)
        self.max_new_tokens = int(max_new_tokens)
        self.temperature = float(temperature)
        self.top_p = float(top_p)
        self.stop = check_stop(stop or [])
        self.batch_tokens = int(batch_tokens)
        self._surroundings: Surroundings | None = None
        self._version = ""
        self._eos: tuple[int, ...] = ()
        self._pad = 0

    def attach(self, surroundings: Surroundings) -> None:
        """Remembers the policy. A completion stops at the tokenizer's EOS and at those of the generation settings.

        Raises:
            InputError: neither names an EOS token.
        """
        self._surroundings = surroundings
        tokenizer = surroundings.tokenizer
        self._eos = eos_tokens(self._model(), tokenizer)
        # Padding never enters attention, and what follows a drawn EOS is cut by position: any id will do.
        self._pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._eos[0])

    def sync(self, version: str, role: Role = "policy") -> None:
        """Remembers the version; the live weights themselves are what is decoded."""
        self._version = version

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
        """`n` completions of each prompt, ordered by prompt and k; `Completion.prompt` counts within `prompts`.

        Raises:
            InputError: a prompt is empty or does not fit into the model's context with `max_new_tokens`, the mixture
                that is asked for cannot be drawn from, or the model's log-probs are not finite.
        """
        numbers = numbers_of(prompts, indices)
        model, weight = self._model(), self._weight(reference_weight)
        check_fits(
            prompts, numbers, self.max_new_tokens, context=getattr(model.config, "max_position_embeddings", None)
        )
        requests = [(i, k) for i in range(len(prompts)) for k in range(n)]
        drawn: dict[Request, Completion] = {}
        with frozen_mode(model):
            for places in batches([len(prompts[i]) for i, _ in requests], self.max_new_tokens, self.batch_tokens):
                batch = [requests[place] for place in places]
                seeds = [stream_seed(seed, round, numbers[i], k) for i, k in batch]
                drawn.update(zip(batch, self._draw(model, prompts, batch, seeds, weight), strict=True))
        for i, k in drawn:
            if not all(map(math.isfinite, drawn[i, k].token_logp)):
                raise InputError(
                    f"sampler: the model's log-probs after prompt {numbers[i]} are not finite: its weights have "
                    "diverged (lower optimizer.lr or raise the KL weight) or its precision overflows"
                )
        return [drawn[request] for request in requests]

    @abstractmethod
    def _weight(self, reference_weight: float | None) -> float:
        """Weight of the starting policy in the mixture to draw from."""

    def _start(self, weight: float, device: torch.device) -> Start | None:
        """The starting policy, where it has a weight."""
        return None

    def _model(self) -> Any:
        if self._surroundings is None:
            raise RuntimeError("call attach(surroundings) before sample()")
        policy = self._surroundings.policy
        if not isinstance(policy, HFPolicy):
            raise TypeError(f"a sampler decodes a language model, not {type(policy).__name__}")
        return policy.loaded()

    def _draw(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        batch: Sequence[Request],
        seeds: Sequence[int],
        weight: float,
    ) -> Iterator[Completion]:
        assert self._surroundings is not None
        uniform_RM = uniforms(seeds, self.max_new_tokens).to(model.device)
        settings = Settings(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            ends=Ends(self._eos, self.stop, self._surroundings.tokenizer),
            weight=weight,
            pad=self._pad,
        )
        places: dict[tuple[int, ...], int] = {}  # prompts that are equal are computed once
        prompt_of_row = [places.setdefault(tuple(prompts[i]), len(places)) for i, _ in batch]
        start = self._start(weight, model.device)
        decoded = [model, *([start[0]] if start else [])]
        with packed_weights(decoded, len(batch)), kept_casts(decoded):
            if obstacle(model, prompts[batch[0][0]]):
                rows = decode_generate(model, start, list(places), prompt_of_row, uniform_RM, settings)
            else:
                runners = [Runner(model), *([Runner(*start)] if start else [])]
                rows = decode(runners, list(places), prompt_of_row, uniform_RM, settings)
        for (i, k), row in zip(batch, rows, strict=True):
            yield Completion(
                prompt=i,
                k=k,
                token_ids=tuple(row.tokens),
                token_logp=tuple(row.logp),
                finish="stop" if row.stopped else "length",
                kept_mass=tuple(row.kept),
                version=self._version,
            )
