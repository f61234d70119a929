"""A stand-in for a vLLM server: its routes over HTTP, with a tiny Hugging Face model behind them, in a thread."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nashtune.samplers.noise import draw, uniforms


class Stub:
    """One server.

    Attributes:
        log: Every request, as (path without query, body).
        replies: What the next requests of a path get instead of an answer: {path: [(status, headers, body), ...]}.
        stale_head: Whether a reload keeps the old LM head, as vLLM's CPU build does with tied embeddings.
        logprobs_mode: As vLLM's option of that name.
        says: What it says of its model's configuration.
        generation: What the server takes where a request says nothing.
        change: Applied to every choice of a reply.
    """

    def __init__(self, folder: Path) -> None:
        self.log: list[tuple[str, Any]] = []
        self.replies: dict[str, list[tuple[int, dict[str, str], str]]] = {}
        self.stale_head = False
        self.logprobs_mode = "raw_logprobs"
        self.generation: dict[str, Any] = {"temperature": 0.3, "top_p": 0.5}
        self.change: Any = lambda choice: choice
        self.says = {"dtype": "torch.float32"}
        self.version = "default"
        self.max_model_len = 512
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub._answer(self, None)

            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stub._answer(self, json.loads(text) if text else None)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def paths(self) -> list[str]:
        return [path for path, _ in self.log]

    def bodies(self, path: str) -> list[Any]:
        return [body for found, body in self.log if found == path]

    def _answer(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        path = handler.path.partition("?")[0]
        with self._lock:
            self.log.append((path, body))
            canned = self.replies.get(path)
            if canned:
                status, headers, text = canned.pop(0)
            else:
                status, headers, text = 200, {}, json.dumps(self._reply(path, body))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(text.encode())))
        handler.end_headers()
        handler.wfile.write(text.encode())

    def _reply(self, path: str, body: Any) -> Any:
        match path:
            case "/v1/models":
                return {"data": [{"id": "tiny", "max_model_len": self.max_model_len}]}
            case "/server_info":
                return {"vllm_config": {"model_config": self.says}}
            case "/weight_info":
                return {"weight_version": self.version}
            case "/update_weight_version":
                self.version = body["new_version"]
                return {"success": True}
            case "/collective_rpc":
                return self._reload(body)
            case "/reset_prefix_cache":
                return {"success": True}
            case "/v1/completions":
                return {"choices": [self.change(self._complete(body))]}
        return {"status": "ok"}

    def _reload(self, body: Any) -> Any:
        assert body["method"] == "reload_weights"
        head = self.model.lm_head.weight.detach().clone()
        model = AutoModelForCausalLM.from_pretrained(body["kwargs"]["weights_path"]).eval()
        if self.stale_head:
            model.lm_head.weight = torch.nn.Parameter(head)
        self.model = model
        return {"results": [None]}

    @torch.no_grad()
    def _complete(self, body: Any) -> Any:
        said = {**self.generation, **body}
        prompt, uniform_M = said["prompt"], uniforms([said.get("seed", 0)], said["max_tokens"])[0]
        ids: list[int] = []
        raw: list[float] = []
        processed: list[float] = []
        finish = "length"
        while len(ids) < said["max_tokens"] and finish == "length":
            logits = self.model(torch.tensor([[*prompt, *ids]])).logits[:, -1]
            drawn = draw(logits, uniform_M[len(ids), None], said["temperature"], said.get("top_p", 1.0))
            ids.append(int(drawn.token))
            processed.append(float(drawn.logp))
            raw.append(float(logits.log_softmax(-1)[0, ids[-1]]))
            text = self.tokenizer.decode(ids)
            if ids[-1] in said.get("stop_token_ids", []) or any(stop in text for stop in said.get("stop", [])):
                finish = "stop"
        choice = {
            "token_ids": ids if said.get("return_token_ids") else None,
            "prompt_token_ids": prompt,
            "finish_reason": finish,
            "logprobs": {"token_logprobs": raw if self.logprobs_mode == "raw_logprobs" else processed},
        }
        if "prompt_logprobs" in said:
            logp = self.model(torch.tensor([prompt])).logits[0].log_softmax(-1)
            scores = [{str(token): {"logprob": float(logp[at, token])}} for at, token in enumerate(prompt[1:])]
            choice["prompt_logprobs"] = [None, *scores]
        return choice
