"""JSON over HTTP to one vLLM server: bounded retries, and errors that name the server and the next step.

The standard library is enough: a request lives for as long as a completion takes, so keeping connections open would
gain nothing. Proxy settings of the environment are not used, because the server reads weights from the run's file
system and is therefore on its network.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from typing import Any

from nashtune.errors import InputError

LONGEST_WAIT = 300.0  # seconds between two attempts, whatever the server asks for
BUSY = frozenset({408, 425, 429, 502, 503, 504})  # a server that is starting, loaded, or behind a busy gateway
BROKEN = 500
SHOWN = 300  # characters of a reply in a message


class Cancelled(Exception):
    """Another request of the same draw failed; this one is not tried again."""


class _TryAgain(Exception):
    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Connection:
    """One server.

    Args:
        url: `http://HOST:PORT`; a trailing `/` or `/v1` does not matter.
        timeout: Seconds until a request that brings no answer counts as failed.
        retries: Further attempts after the first.
        backoff: Seconds before the second attempt; doubled for each one after it.
        advice: How to go on after an error; ends every message.
    """

    def __init__(self, url: str, *, timeout: float, retries: int, backoff: float, advice: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout = timeout
        self.retries = retries
        self.backoff = backoff
        self.advice = advice
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """The decoded reply of a GET request; None where it is empty.

        Raises:
            InputError: the server cannot be reached, refuses, or answers something else than JSON.
        """
        return self._call(urllib.request.Request(self.url + path), None, BUSY | {BROKEN})

    def post(self, path: str, body: Any = None, *, once: bool = False, cancelled: threading.Event | None = None) -> Any:
        """The same of a POST request.

        Args:
            path: Route, query included.
            body: What is sent as JSON; None sends nothing.
            once: A failure inside the server (500) is final: asking again could not help.
            cancelled: Set by others to end the attempts.

        Raises:
            InputError: the server cannot be reached, refuses, or answers something else than JSON.
            Cancelled: `cancelled` was set while waiting for the next attempt.
        """
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        return self._call(request, cancelled, BUSY if once else BUSY | {BROKEN})

    def error(self, what: str) -> InputError:
        """An error about this server."""
        return InputError(f"sampler: vLLM server {self.url}: {what}. {self.advice}")

    def _call(self, request: urllib.request.Request, cancelled: threading.Event | None, again: frozenset[int]) -> Any:
        reason = ""
        for attempt in range(self.retries + 1):
            if cancelled is not None and cancelled.is_set():
                raise Cancelled
            try:
                return self._once(request, again)
            except _TryAgain as error:
                reason = str(error)
                if attempt < self.retries:
                    pause(min(max(self.backoff * 2**attempt, error.wait), LONGEST_WAIT), cancelled)
        raise self.error(f"{request.selector}: {reason}, {self.retries + 1} times; is it running and reachable?")

    def _once(self, request: urllib.request.Request, again: frozenset[int]) -> Any:
        try:
            with self._opener.open(request, timeout=self.timeout) as reply:
                text = reply.read()
        except urllib.error.HTTPError as error:
            raise self._refusal(request, error, again) from error
        except (OSError, http.client.HTTPException) as error:  # URLError and TimeoutError are OSErrors
            raise _TryAgain(f"no answer ({getattr(error, 'reason', None) or error or type(error).__name__})") from error
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            found = text[:SHOWN].decode(errors="replace")
            raise self.error(f"{request.selector} answered no JSON: {found!r}; is it a vLLM server?") from error

    def _refusal(
        self, request: urllib.request.Request, error: urllib.error.HTTPError, again: frozenset[int]
    ) -> Exception:
        try:
            said = error.read()[:SHOWN].decode(errors="replace")
        except (OSError, http.client.HTTPException):
            said = ""
        reason = f"HTTP {error.code} {said}".rstrip()
        if error.code in again:
            asked = error.headers.get("Retry-After", "")
            return _TryAgain(reason, float(asked) if asked.isdigit() else 0.0)
        hint = ""
        if error.code == 404 and not request.selector.startswith("/v1"):
            hint = "; the routes that push weights exist only when the server was started with VLLM_SERVER_DEV_MODE=1"
        return self.error(f"{request.selector}: {reason}{hint}")


def pause(seconds: float, cancelled: threading.Event | None) -> None:
    """Waits, or less when cancelled."""
    (cancelled or threading.Event()).wait(seconds)
