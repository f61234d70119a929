"""Draws completions from a live model with Hugging Face `generate`.

Legend: R = rows of a batch, T = positions of the padded prompts, V = vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from nashtune.errors import InputError
from nashtune.interfaces.sampler import Completion, Sampler

if TYPE_CHECKING:
    from torch import Tensor

Request = tuple[int, int]  # (prompt, k)


class PolicySampler(Sampler):
    """Samples from the policy itself, or greedily at temperature 0.

    Noise is Gumbel noise on the log-probs (arg max of log p + Gumbel is a draw from p) from one random stream per
    completion, so batch-mates and the order of prompts do not matter beyond floating-point rounding of the logits.
    Nothing but the temperature shapes the distribution: what the model folder's generation settings say (top-p,
    repetition penalty ...) is set aside, for it would make the returned log-probs those of another policy.

    Args:
        max_new_tokens: Longest completion in tokens, EOS included.
        temperature: The distribution is softmax(logits / temperature); 0 takes the most likely token.
        batch_size: Completions drawn at once.
    """

    def __init__(
        self, *, max_new_tokens: PositiveInt = 256, temperature: NonNegativeFloat = 1.0, batch_size: PositiveInt = 16
    ) -> None:
        self.max_new_tokens = int(max_new_tokens)
        self.temperature = float(temperature)
        self.batch_size = int(batch_size)
        self._model: Any = None
        self._eos: tuple[int, ...] = ()
        self._pad = 0

    def bind(self, model: Any, tokenizer: Any) -> PolicySampler:
        """Gives the live model (a Hugging Face causal LM, a PEFT model included) and its tokenizer; returns itself.

        A completion stops at the tokenizer's EOS and at each EOS that the model's generation settings name.

        Raises:
            InputError: neither names an EOS token.
        """
        named = getattr(model.generation_config, "eos_token_id", None)
        eos = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
        self._eos = tuple(dict.fromkeys(int(token) for token in eos if token is not None))
        if not self._eos:
            raise InputError("sampler: neither the tokenizer nor the model's generation settings name an EOS token")
        self._model = model
        # Padding never enters attention, and what follows a drawn EOS is cut by position: any id will do.
        self._pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._eos[0])
        return self

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        seed: int,
        round: int = 0,
        indices: Sequence[int] | None = None,
    ) -> list[Completion]:
        """`n` completions of each prompt, ordered by prompt and k; `Completion.prompt` counts within `prompts`.

        `token_logp` is under the distribution that was drawn from: at temperature T that of softmax(logits / T), at 0 a
        point mass, hence 0.0.

        Raises:
            InputError: a prompt is empty, or does not fit into the model's context with `max_new_tokens`.
        """
        if self._model is None:
            raise RuntimeError("call bind(model, tokenizer) before sample()")
        numbers = range(len(prompts)) if indices is None else indices
        if len(numbers) != len(prompts):
            raise ValueError(f"{len(numbers)} indices for {len(prompts)} prompts")
        self._check(prompts)
        requests = [(i, k) for i in range(len(prompts)) for k in range(n)]
        requests.sort(key=lambda request: len(prompts[request[0]]))  # prompts of like length share a batch
        drawn: dict[Request, Completion] = {}
        with _sampling_mode(self._model):
            for start in range(0, len(requests), self.batch_size):
                batch = requests[start : start + self.batch_size]
                seeds = [stream_seed(seed, round, numbers[i], k) for i, k in batch]
                drawn.update(zip(batch, self._draw([prompts[i] for i, _ in batch], batch, seeds), strict=True))
        return [drawn[request] for request in sorted(drawn)]

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        limit = getattr(self._model.config, "max_position_embeddings", None)
        for i, prompt in enumerate(prompts):
            if not prompt:
                raise InputError(f"sampler: prompt {i} has no token")
            if limit is not None and len(prompt) + self.max_new_tokens > limit:
                raise InputError(
                    f"sampler: prompt {i} has {len(prompt)} tokens, which with max_new_tokens={self.max_new_tokens} "
                    f"exceeds the model's context of {limit}; shorten the prompt or lower max_new_tokens"
                )

    def _draw(
        self, prompts: Sequence[Sequence[int]], batch: Sequence[Request], seeds: Sequence[int]
    ) -> Iterator[Completion]:
        device = self._model.device
        width = max(map(len, prompts))
        ids_RT = torch.tensor([[self._pad] * (width - len(p)) + list(p) for p in prompts], device=device)
        mask_RT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        noise = GumbelMax(self.temperature, seeds, device)
        out = self._model.generate(
            input_ids=ids_RT,
            attention_mask=mask_RT,
            position_ids=(mask_RT.cumsum(-1) - 1).clamp_min(0),  # a left-padded prompt still begins at position 0
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=self.max_new_tokens,
                eos_token_id=list(self._eos),
                pad_token_id=self._pad,
                use_cache=True,
            ),
            logits_processor=LogitsProcessorList([noise]),
        )
        logp = torch.stack(noise.logp, dim=1).tolist()
        for (i, k), row, values in zip(batch, out[:, width:].tolist(), logp, strict=True):
            stop = next((at for at, token in enumerate(row) if token in self._eos), None)
            length = len(row) if stop is None else stop + 1
            yield Completion(
                prompt=i,
                k=k,
                token_ids=tuple(row[:length]),
                token_logp=tuple(values[:length]),
                finish="length" if stop is None else "stop",
            )


class GumbelMax(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Turns greedy search into sampling, and notes the log-prob of each token that wins.

    Args:
        temperature: 0 adds no noise.
        seeds: One per row.
        device: Where the logits are; the streams live there too, so that a GPU waits for no CPU.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], device: torch.device) -> None:
        self.temperature = temperature
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.logp: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, V) whose arg max is the drawn token; one draw per row and call."""
        if self.temperature == 0:
            self.logp.append(torch.zeros(len(scores), device=scores.device))
            return scores
        logp_RV = torch.log_softmax(scores.float() / self.temperature, dim=-1)
        noisy_RV = logp_RV + torch.stack([self._gumbel(stream, scores.shape[-1]) for stream in self.streams])
        self.logp.append(logp_RV.gather(-1, noisy_RV.argmax(-1, keepdim=True)).squeeze(-1))
        return noisy_RV

    @staticmethod
    def _gumbel(stream: torch.Generator, size: int) -> Tensor:
        # float64: 24 bits of a float32 uniform cut the upper tail where a vocabulary of 50,000 still lands at times
        uniform_V = torch.rand(size, dtype=torch.float64, generator=stream, device=stream.device)
        return -torch.log(-torch.log(uniform_V.clamp_min(torch.finfo(torch.float64).tiny))).float()


def stream_seed(seed: int, round: int, prompt: int, k: int) -> int:
    """Seed of one completion's noise: the same on every machine, and unrelated between neighbours."""
    digest = hashlib.sha256(f"{seed}/{round}/{prompt}/{k}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch.Generator takes a signed 64-bit number


@contextmanager
def _sampling_mode(model: Any) -> Iterator[None]:
    """Evaluation mode, and generation settings that say nothing: `generate` fills its own from them otherwise."""
    # a PEFT model hands its settings down to the model inside and leaves them there
    holders = [model, *([model.get_base_model()] if hasattr(model, "get_base_model") else [])]
    kept = [(holder, holder.generation_config) for holder in holders]
    training = model.training
    model.eval()
    for holder in holders:
        holder.generation_config = GenerationConfig()
    try:
        with torch.no_grad():
            yield
    finally:
        for holder, settings in kept:
            holder.generation_config = settings
        model.train(training)
