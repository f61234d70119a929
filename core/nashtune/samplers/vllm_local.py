"""A vLLM engine in this process: `vllm.LLM`."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nashtune.errors import InputError
from nashtune.samplers.vllm_engines import SCORING, Drawn, Engine, Facts, Request, Settings, drawn, prompt_scores


class InProcessEngine(Engine):
    """`vllm.LLM` in this process; vLLM itself runs it in a child process.

    Args:
        folder: The first weights.
        dtype: vLLM's name of the dtype.
        options: Further arguments of `vllm.LLM`.
        advice: How to go on after an error.
    """

    name = "in_process"

    def __init__(self, folder: Path, *, dtype: str, options: Mapping[str, Any], advice: str) -> None:
        self.advice = advice
        # a fork would copy the locks of torch's threads, which run already
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        try:
            self._vllm = importlib.import_module("vllm")
            self._llm = self._vllm.LLM(
                **{"model": str(folder), "dtype": dtype, "logprobs_mode": "processed_logprobs", **options}
            )
        except ImportError as error:
            raise self.error(f"cannot be imported ({error}); install vllm here, or use `engine: server`") from error
        except (RuntimeError, ValueError, TypeError) as error:
            raise self.error(f"does not start: {error}; see sampler.engine_options") from error
        self._tag = ""

    def facts(self) -> Facts:
        """Asks the engine about itself."""
        config = self._llm.llm_engine.model_config
        return Facts(
            max_length=int(config.max_model_len),
            dtype=str(config.dtype).removeprefix("torch."),
            logprobs_mode=str(config.logprobs_mode),
        )

    def draw(self, requests: Sequence[Request], settings: Settings, cancelled: threading.Event) -> list[Drawn]:
        """One completion of each request, in order."""
        parameters = [self._vllm.SamplingParams(**settings.parameters(request.seed)) for request in requests]
        results = []
        for output in self._generate([request.prompt for request in requests], parameters):
            choice = output.outputs[0]
            ids = list(choice.token_ids)
            logp = [found[token].logprob for token, found in zip(ids, choice.logprobs or [], strict=False)]
            results.append(drawn(ids, logp, choice.finish_reason, settings, self))
        return results

    def score(self, ids: Sequence[int]) -> list[float]:
        """Log-prob of every token but the first, at temperature 1."""
        output = self._generate([ids], [self._vllm.SamplingParams(**SCORING)])[0]
        return prompt_scores(output.prompt_logprobs, ids, self)

    def push(self, folder: Path, tag: str) -> None:
        """Loads the weights of a folder."""
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        except (RuntimeError, ValueError) as error:
            raise self.error(f"cannot load {folder}: {error}") from error
        if not self._llm.reset_prefix_cache():
            raise self.error("cannot empty its prefix cache")
        self._tag = tag

    def tag(self) -> str:
        """Tag of the weights; nobody else can push here."""
        return self._tag

    def error(self, what: str) -> InputError:
        """An error about this engine."""
        return InputError(f"sampler: vLLM in this process: {what}. {self.advice}")

    def _generate(self, prompts: Sequence[Sequence[int]], parameters: Sequence[Any]) -> list[Any]:
        tokens = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return list(self._llm.generate(tokens, list(parameters), use_tqdm=False))
