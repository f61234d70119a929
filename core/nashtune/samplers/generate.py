"""What samplers of a live model share: arguments, decoding with Hugging Face `generate`, where completions end.

Legend: R = rows of a batch, T = positions of the padded prompts.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from nashtune.errors import InputError
from nashtune.interfaces.sampler import Completion, Sampler, Surroundings
from nashtune.interfaces.schedule import Role
from nashtune.logprobs.head import base_model
from nashtune.models.mode import frozen_mode
from nashtune.models.policy import HFPolicy
from nashtune.samplers.batching import batches, check_fits, left_padded, positions
from nashtune.samplers.noise import GumbelMax, stream_seed
from nashtune.samplers.stops import StopStrings, check_stop, eos_tokens

if TYPE_CHECKING:
    from torch import Tensor

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
        numbers = range(len(prompts)) if indices is None else indices
        if len(numbers) != len(prompts):
            raise ValueError(f"{len(numbers)} indices for {len(prompts)} prompts")
        model, weight = self._model(), self._weight(reference_weight)
        check_fits(
            prompts, numbers, self.max_new_tokens, context=getattr(model.config, "max_position_embeddings", None)
        )
        requests = [(i, k) for i in range(len(prompts)) for k in range(n)]
        drawn: dict[Request, Completion] = {}
        with _sampling_mode(model):
            for places in batches([len(prompts[i]) for i, _ in requests], self.max_new_tokens, self.batch_tokens):
                batch = [requests[place] for place in places]
                noise = self._noise([stream_seed(seed, round, numbers[i], k) for i, k in batch], model.device)
                drawn.update(zip(batch, self._draw(model, prompts, batch, noise, weight), strict=True))
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

    def _mixing(self, mask_RT: Tensor, weight: float) -> list[Any]:
        """Logits processors that come before temperature and noise."""
        return []

    def _model(self) -> Any:
        if self._surroundings is None:
            raise RuntimeError("call attach(surroundings) before sample()")
        policy = self._surroundings.policy
        if not isinstance(policy, HFPolicy):
            raise TypeError(f"a sampler decodes a language model, not {type(policy).__name__}")
        return policy.loaded()

    def _noise(self, seeds: Sequence[int], device: torch.device) -> GumbelMax:
        return GumbelMax(self.temperature, seeds, device, self.top_p)

    def _draw(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        batch: Sequence[Request],
        noise: GumbelMax,
        weight: float,
    ) -> Iterator[Completion]:
        ids_RT, mask_RT = left_padded([prompts[i] for i, _ in batch], self._pad, model.device)
        width = ids_RT.shape[1]
        strings = [StopStrings(self._tokenizer, self.stop, width, len(batch))] if self.stop else []
        out = model.generate(
            input_ids=ids_RT,
            attention_mask=mask_RT,
            **positions(model, mask_RT),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=self.max_new_tokens,
                eos_token_id=list(self._eos),
                pad_token_id=self._pad,
                use_cache=True,
            ),
            logits_processor=LogitsProcessorList([*self._mixing(mask_RT, weight), noise]),
            stopping_criteria=StoppingCriteriaList(strings),
        )
        ended = strings[0].lengths if strings else [None] * len(batch)
        logp = torch.stack(noise.logp, dim=1).tolist()
        kept = torch.stack(noise.kept, dim=1).tolist() if noise.kept else [[]] * len(batch)
        rows = zip(batch, out[:, width:].tolist(), logp, kept, ended, strict=True)
        for (i, k), tokens, logp_row, kept_row, by_string in rows:
            by_eos = next((at + 1 for at, token in enumerate(tokens) if token in self._eos), None)
            ends = [length for length in (by_eos, by_string) if length is not None]
            length = min(ends, default=len(tokens))
            yield Completion(
                prompt=i,
                k=k,
                token_ids=tuple(tokens[:length]),
                token_logp=tuple(logp_row[:length]),
                finish="stop" if ends else "length",
                kept_mass=tuple(kept_row[:length]),
                version=self._version,
            )

    @property
    def _tokenizer(self) -> Any:
        assert self._surroundings is not None
        return self._surroundings.tokenizer


@contextmanager
def _sampling_mode(model: Any) -> Iterator[None]:
    """Evaluation mode, and generation settings that say nothing: `generate` fills its own from them otherwise."""
    # a PEFT model hands its settings down to the model inside and leaves them there
    holders = [model, *([base_model(model)] if hasattr(model, "get_base_model") else [])]
    kept = [(holder, holder.generation_config) for holder in holders]
    for holder in holders:
        holder.generation_config = GenerationConfig()
    try:
        with frozen_mode(model):
            yield
    finally:
        for holder, settings in kept:
            holder.generation_config = settings
