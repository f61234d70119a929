"""What the sampler needs of a vLLM engine, on a server or in this process.

What vLLM guarantees: a request's noise comes from a generator of its own, seeded by the request, so it depends neither
on batch-mates nor on which server draws. The logits do, in their last bits: the kernels' order of summation changes
with the batch, and where two tokens are that close the draw may be the other one. Only `VLLM_BATCH_INVARIANT=1`, on
GPUs that support it, removes this; the CPU build has no such mode.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nashtune.errors import InputError

FINISHES: dict[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One completion to draw: the prompt's token ids and the seed of its noise, in [0, 2^63)."""

    prompt: Sequence[int]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One completion as an engine gave it: token ids, log-prob of each (nats), and why it ended."""

    token_ids: tuple[int, ...]
    token_logp: tuple[float, ...]
    finish: Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What shapes a draw.

    Args:
        max_new_tokens: Longest completion.
        temperature: Of the softmax; 0 is greedy.
        top_p: Nucleus.
        stop: Texts that end a completion.
        eos: Tokens that end it.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    eos: tuple[int, ...]

    def logprobs_modes(self) -> tuple[str, ...]:
        """Those under which returned log-probs are of the distribution drawn from: raw ones only where both agree."""
        if self.temperature == 0:  # they are not used
            return ("raw_logprobs", "processed_logprobs", "raw_logits", "processed_logits")
        plain = self.temperature == 1.0 and self.top_p == 1.0
        return ("raw_logprobs", "processed_logprobs") if plain else ("processed_logprobs",)

    def parameters(self, seed: int) -> dict[str, Any]:
        """Sampling parameters by vLLM's names.

        Everything that could shape the distribution is said: what is not, a server takes from the model folder's
        generation settings (top-k, repetition penalty ...), and the log-probs would be those of another policy. EOS is
        named for the same reason: the server's own notion of it is switched off.
        """
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_tokens": self.max_new_tokens,
            "seed": seed,
            "stop": list(self.stop),
            "stop_token_ids": list(self.eos),
            "ignore_eos": True,
            "skip_special_tokens": False,  # else a stop string that is a special token's text never appears
            "logprobs": 0,  # the drawn token's alone
        }


SCORING: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
"""Sampling parameters that score a prompt; vLLM must draw at least one token."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an engine says of itself.

    Args:
        max_length: Longest sequence in tokens; None where it does not say.
        dtype: Such as "bfloat16"; "" where it does not say.
        logprobs_mode: vLLM's option of that name; "" where it does not say.
    """

    max_length: int | None
    dtype: str
    logprobs_mode: str


class Engine(ABC):
    """A vLLM engine with weights of its own.

    Attributes:
        name: For messages.
    """

    name: str

    @abstractmethod
    def facts(self) -> Facts:
        """Asks the engine about itself."""

    @abstractmethod
    def draw(self, requests: Sequence[Request], settings: Settings, cancelled: threading.Event) -> list[Drawn]:
        """One completion of each request, in order."""

    @abstractmethod
    def score(self, ids: Sequence[int]) -> list[float]:
        """Log-prob of every token but the first, at temperature 1."""

    @abstractmethod
    def push(self, folder: Path, tag: str) -> None:
        """Loads the weights of a Hugging Face folder, forgets what it cached under the old ones, and keeps the tag."""

    @abstractmethod
    def tag(self) -> str:
        """Tag of the weights that the engine runs."""

    @abstractmethod
    def error(self, what: str) -> InputError:
        """An error about this engine."""


def prompt_scores(values: Any, ids: Sequence[int], engine: Engine) -> list[float]:
    """Log-probs out of vLLM's `prompt_logprobs`: a list with None first, then one mapping for each token.

    Args:
        values: The list; a mapping's keys are token ids (text in JSON), its values objects or dicts with `logprob`.
        ids: The tokens that were scored.
        engine: For messages.
    """
    if not isinstance(values, list) or len(values) != len(ids):
        raise engine.error("the reply scores another number of tokens than were sent; is it a vLLM server?")
    scores = []
    for token, found in zip(ids[1:], values[1:], strict=True):
        one = {str(key): value for key, value in found.items()}.get(str(token)) if isinstance(found, Mapping) else None
        score = one.get("logprob") if isinstance(one, Mapping) else getattr(one, "logprob", None)
        if not isinstance(score, float | int):
            raise engine.error(f"the reply gives no log-prob for token {token} of the prompt")
        scores.append(float(score))
    return scores


def drawn(token_ids: Any, token_logp: Any, finish: Any, settings: Settings, engine: Engine) -> Drawn:
    """A completion, once it is whole.

    Raises:
        InputError: token ids or log-probs are missing, or it ended for another reason than EOS, stop string or limit.
    """
    if not isinstance(token_ids, list | tuple) or not all(isinstance(token, int) for token in token_ids):
        raise engine.error("the reply has no token ids; vLLM gives them (return_token_ids) since 0.10")
    if not isinstance(token_logp, list | tuple) or len(token_logp) != len(token_ids):
        raise engine.error("the reply does not have one log-prob for each token")
    if not all(isinstance(value, float | int) and value < 1e-3 for value in token_logp):
        raise engine.error("the reply's log-probs are no log-probs; start it with --logprobs-mode processed_logprobs")
    if finish not in FINISHES:
        raise engine.error(f"a completion ended for the reason {finish!r}; known: stop, length")
    if not token_ids or (finish == "length" and len(token_ids) != settings.max_new_tokens):
        raise engine.error(
            f"a completion ended after {len(token_ids)} tokens for the reason {finish!r}, but max_new_tokens is "
            f"{settings.max_new_tokens}; start the server with --generation-config vllm, so that no limit of the model "
            "folder holds"
        )
    # the policy sampler's convention: a greedy choice is certain
    logp = [0.0] * len(token_ids) if settings.temperature == 0 else [min(float(value), 0.0) for value in token_logp]
    return Drawn(token_ids=tuple(token_ids), token_logp=tuple(logp), finish=FINISHES[finish])
