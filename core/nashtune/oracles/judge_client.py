"""Talks to an OpenAI-compatible chat endpoint: bounded retries with growing waits, and errors that say what to do."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nashtune.errors import InputError, nearest
from nashtune.notes import note
from nashtune.oracles.judge_http import TRY_AGAIN, endpoint, listed_models, retry_after, said, transport_errors

if TYPE_CHECKING:
    import httpx2

FIRST_WAIT = 1.0  # seconds before the second try; doubled with each one after
LONGEST_WAIT = 120.0  # seconds; a server that wants more is taken for down


class NoAnswer(Exception):
    """The endpoint gave no answer within the tries that are allowed; the message says what happened last."""


class Stopped(Exception):
    """Another question failed for good, or the run is ending, so this one is given up."""


class _TryAgain(Exception):
    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class ChatClient:
    """One model behind one endpoint. Threads may share it; its connections are open within `with client:`.

    Args:
        url: Address, as OpenAI's clients take it (http://localhost:8000/v1).
        model: Name of the model there.
        api_key_env: Environment variable that holds the key; None sends none.
        timeout: Seconds until a try is given up.
        retries: Tries after the first one.

    Attributes:
        counts: "requests" and "retries", and what else `count` was told.
    """

    def __init__(self, url: str, model: str, api_key_env: str | None, timeout: float, retries: int) -> None:
        self.base = endpoint(url)
        self.model = model
        self.timeout = timeout
        self.retries = retries
        self.counts: Counter[str] = Counter()
        self._key_name = api_key_env
        self._lock = threading.Lock()
        self._http: httpx2.Client | None = None
        if api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", api_key_env):
            raise InputError(
                "oracle.api_key_env: this is no name of an environment variable. Put the key into one and give its "
                "name, such as OPENAI_API_KEY; a key written here would be stored with the run"
            )

    def __enter__(self) -> ChatClient:
        import httpx2

        headers = {"Authorization": f"Bearer {self._key()}"} if self._key_name else {}
        limits = httpx2.Limits(max_connections=None)  # the oracle bounds them
        self._http = httpx2.Client(base_url=self.base, headers=headers, timeout=self.timeout, limits=limits)
        return self

    def __exit__(self, *error: object) -> None:
        self._connections().close()
        self._http = None

    def check(self, options: Mapping[str, Any]) -> None:
        """Whether the endpoint answers, takes the key and knows the model.

        Args:
            options: What every question carries besides its messages.

        Raises:
            InputError: it does not.
        """
        if self._key_name:
            note(f"oracle judge: the key in {self._key_name} is sent to {self.base}")
        with self:
            self._check(options)

    def _check(self, options: Mapping[str, Any]) -> None:
        try:
            response = self._connections().get("models")
        except transport_errors() as error:
            raise InputError(
                f"oracle judge: nothing answers at {self.base} ({said(error)}); start the server, or set oracle.url"
            ) from error
        if response.status_code in (401, 403):
            raise InputError(self._refused(response))
        listed = listed_models(response) if response.status_code == 200 else []
        if self.model in listed:
            return
        # Servers list what they like; a question shows whether the name is right.
        try:
            self.ask([{"role": "user", "content": "Reply with the word yes."}], options, threading.Event())
        except NoAnswer as error:
            raise InputError(f"oracle judge: {self.base} {error}") from error
        except InputError as error:
            raise InputError(f"{error}{nearest(self.model, listed) if listed else ''}") from error

    def ask(self, messages: list[dict[str, str]], options: Mapping[str, Any], stop: threading.Event) -> str:
        """The text of the model's answer.

        Args:
            messages: The conversation so far.
            options: Further fields of the request.
            stop: When it is set, no further try is made.

        Raises:
            NoAnswer: no tries are left.
            InputError: the endpoint refuses the request, so that trying again would not help.
            Stopped: `stop` was set.
        """
        body = {"model": self.model, "messages": messages, **options}
        began = time.monotonic()
        for tried in range(self.retries + 1):
            if stop.is_set():
                raise Stopped
            try:
                return self._try(body)
            except _TryAgain as error:
                last = error
            if last.wait > LONGEST_WAIT:
                raise NoAnswer(f"asks to wait {last.wait:.0f} s, longer than {LONGEST_WAIT:.0f} s ({last})") from last
            if tried < self.retries:
                self.count("retries")
                stop.wait(max(last.wait, min(FIRST_WAIT * 2**tried, LONGEST_WAIT)))
        raise NoAnswer(
            f"gave no answer in {self.retries + 1} tries over {time.monotonic() - began:.0f} s; the last one: {last}"
        ) from last

    def count(self, what: str) -> None:
        """Add one to a count."""
        with self._lock:
            self.counts[what] += 1

    def _try(self, body: Mapping[str, Any]) -> str:
        self.count("requests")
        try:
            response = self._connections().post("chat/completions", json=body)
        except transport_errors() as error:
            raise _TryAgain(said(error)) from error
        if response.status_code in TRY_AGAIN:
            raise _TryAgain(f"HTTP {response.status_code}: {self._body(response)}", retry_after(response))
        if response.status_code != 200:
            raise InputError(self._refused(response))
        try:
            return self._clean(str(response.json()["choices"][0]["message"].get("content") or ""))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _TryAgain(f"an answer that is no chat completion: {self._body(response)}") from error

    def _connections(self) -> httpx2.Client:
        if self._http is None:
            raise RuntimeError("the client is closed: ask within `with client:`")
        return self._http

    def _key(self) -> str:
        assert self._key_name is not None
        key = os.environ.get(self._key_name, "").strip()
        if not key:
            raise InputError(f"oracle.api_key_env: the environment variable {self._key_name} is not set")
        return key

    def _refused(self, response: httpx2.Response) -> str:
        code = response.status_code
        hint = ""
        if code in (401, 403) and self._key_name:
            hint = f"; is the key in {self._key_name} right?"
        elif code in (401, 403):
            hint = "; put the key into an environment variable and its name into oracle.api_key_env"
        return f"oracle judge: {self.base} refuses the model {self.model!r}: HTTP {code}: {self._body(response)}{hint}"

    def _body(self, response: httpx2.Response) -> str:
        return self._clean(" ".join(response.text.split()))[:200] or "(empty)"

    def _clean(self, text: str) -> str:
        """Without the key: some servers quote what they were sent, and answers and messages are written down."""
        return text.replace(self._key(), "***") if self._key_name else text
