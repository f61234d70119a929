"""A vLLM server as an engine: `/v1/completions` with token ids, and the routes that push weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from nashtune.errors import InputError
from nashtune.samplers.vllm_client import Connection, pause
from nashtune.samplers.vllm_engines import SCORING, Drawn, Engine, Facts, Request, Settings, drawn, prompt_scores

RESETS = 20  # attempts to empty the prefix cache, which a server refuses while it still frees blocks


class ServerEngine(Engine):
    """One server.

    Args:
        connection: To it.
        concurrent: Requests under way at once.
    """

    def __init__(self, connection: Connection, *, concurrent: int) -> None:
        self.name = connection.url
        self._http = connection
        self._concurrent = concurrent
        self._model = ""
        self._facts: Facts | None = None

    def advise(self, advice: str) -> None:
        """From now on messages end with this."""
        self._http.advice = advice

    def facts(self) -> Facts:
        """Asks for the model's name, its longest sequence, its dtype and its kind of log-probs, once.

        vLLM takes seconds over its settings, every time.
        """
        if self._facts is None:
            self._facts = self._ask()
        return self._facts

    def _ask(self) -> Facts:
        models = self._http.get("/v1/models")
        try:
            self._model = str(models["data"][0]["id"])
            length = models["data"][0].get("max_model_len")
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise self.error("/v1/models names no model; is it a vLLM server?") from error
        info = self._http.get("/server_info?config_format=json")
        config = info.get("vllm_config") if isinstance(info, dict) else None
        model = config.get("model_config") if isinstance(config, dict) else None
        said = model if isinstance(model, dict) else {}
        return Facts(
            max_length=length if isinstance(length, int) else None,
            dtype=str(said.get("dtype") or "").removeprefix("torch."),
            logprobs_mode=str(said.get("logprobs_mode") or ""),
        )

    def draw(self, requests: Sequence[Request], settings: Settings, cancelled: threading.Event) -> list[Drawn]:
        """One completion of each request, in order; the first failure ends the others."""
        with ThreadPoolExecutor(self._concurrent) as pool:
            futures = [pool.submit(self._draw, request, settings, cancelled) for request in requests]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                failed = [future.exception() for future in futures if future.done() and not future.cancelled()]
                if error := next((one for one in failed if isinstance(one, InputError)), None):
                    raise error
                return [future.result() for future in futures]
            except BaseException:
                cancelled.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def score(self, ids: Sequence[int]) -> list[float]:
        """Log-prob of every token but the first, at temperature 1."""
        choice = self._complete(ids, SCORING, None)
        return prompt_scores(choice.get("prompt_logprobs"), ids, self)

    def push(self, folder: Path, tag: str) -> None:
        """Pauses the server, has it load the folder, names the weights, and lets it go on."""
        # "wait": a completion of another client must not begin under one set of weights and end under the next
        self._http.post("/pause?mode=wait")
        try:
            body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            self._http.post("/collective_rpc", body, once=True)
            self._http.post("/update_weight_version", {"new_version": tag})
        finally:
            self._http.post("/resume")
        for _ in range(RESETS):
            reply = self._http.post("/reset_prefix_cache")
            if isinstance(reply, dict) and reply.get("success", True):
                return
            pause(self._http.backoff, None)
        raise self.error("does not empty its prefix cache, which holds states of the old weights; restart it")

    def tag(self) -> str:
        """Tag of the weights that the server runs, whoever pushed them."""
        reply = self._http.get("/weight_info")
        return str(reply.get("weight_version") or "") if isinstance(reply, dict) else ""

    def error(self, what: str) -> InputError:
        """An error about this server."""
        return self._http.error(what)

    def _draw(self, request: Request, settings: Settings, cancelled: threading.Event) -> Drawn:
        choice = self._complete(request.prompt, settings.parameters(request.seed), cancelled)
        logprobs = choice.get("logprobs")
        logp = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        return drawn(choice.get("token_ids"), logp, choice.get("finish_reason"), settings, self)

    def _complete(self, ids: Sequence[int], parameters: dict[str, Any], cancelled: threading.Event | None) -> Any:
        # one request a completion: vLLM derives the seeds of several completions of one request by counting up
        body = {"model": self._model, "prompt": list(ids), "n": 1, "return_token_ids": True, **parameters}
        reply = self._http.post("/v1/completions", body, cancelled=cancelled)
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise self.error(f"/v1/completions answered {str(reply)[:200]!r}, which holds no completion")
        read = choices[0].get("prompt_token_ids")
        if read is not None and list(read) != list(ids):
            raise self.error("it read another prompt than was sent; token ids must pass as they are")
        return choices[0]
