"""A page in a browser, and everything that it asked for or complained of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 120_000
"""Milliseconds until a browser that does not answer is given up."""


class Opened:
    """One page in a context of its own.

    Args:
        browser: Playwright's.
        path: The file.
        width: Of the window.
        scheme: What the reader's system prefers: "light" or "dark".

    Attributes:
        asked: Addresses of all requests that left the page.
        blocked: Addresses of those that the page's own policy has stopped.
        complaints: What the console has said.
        expected: What it may say.
    """

    def __init__(self, browser: Any, path: Path, *, width: int, scheme: str) -> None:
        self.address = path.as_uri()
        self.asked: list[str] = []
        self.blocked: list[str] = []
        self.complaints: list[str] = []
        self.expected: list[str] = []
        self._context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self._context.set_default_timeout(PATIENCE)
        self.page = self._context.new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", self._failed)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.address)
        self.asked = [one for one in self.asked if not one.startswith("data:")]

    def _failed(self, request: Any) -> None:
        if request.failure == "csp":
            self.asked.remove(request.url)
            self.blocked.append(request.url)

    def ask(self, code: str) -> Any:
        """Value of an expression in the page."""
        return self.page.evaluate(code)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Until something is true of what the browser tells, for half a minute: whoever asked for it sees what is."""
        for _ in range(600):
            if true():
                return
            self.page.wait_for_timeout(50)

    def close(self) -> None:
        self._context.close()
