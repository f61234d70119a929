"""A chat endpoint on loopback whose answers a test decides."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWERS = re.compile(r"\[Answer A\]\n(.*?)\n\n\[Answer B\]\n(.*?)\n\nReply", re.DOTALL)


@dataclass
class Reply:
    """What the endpoint sends: a status, a body and headers; `hold` is waited for first."""

    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None


def said(text: str | None) -> Reply:
    """A chat completion with that text."""
    return Reply(json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}))


def prefers_longer(body: dict[str, Any]) -> Reply:
    """A judge without position bias."""
    first, second = ANSWERS.search(body["messages"][0]["content"]).groups()  # type: ignore[union-attr]
    order = len(first) - len(second)
    return said("[[A]]" if order > 0 else "[[B]]" if order < 0 else "[[tie]]")


@dataclass
class ChatStub:
    """The endpoint.

    Attributes:
        url: Its address.
        reply: Body of a request -> what is sent; a test may exchange it.
        asked: Bodies of all requests, in order of arrival.
        headers: Headers of all requests.
        models: Reply to GET /models.
    """

    url: str = ""
    reply: Callable[[dict[str, Any]], Reply] = prefers_longer
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    models: Reply = field(default_factory=lambda: Reply('{"data": [{"id": "stub"}]}'))


@contextmanager
def chat_stub() -> Iterator[ChatStub]:
    stub = ChatStub()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(stub.models if self.path == "/v1/models" else Reply("no such path", 404))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                stub.asked.append(body)
                stub.headers.append(dict(self.headers))
                reply = stub.reply(body) if self.path == "/v1/chat/completions" else Reply("no such path", 404)
            if reply.hold is not None:
                reply.hold.wait(20)
            self.send(reply)

        def send(self, reply: Reply) -> None:
            data = reply.body.encode()
            try:
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):  # the client gave up, as it should where a test makes it
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
