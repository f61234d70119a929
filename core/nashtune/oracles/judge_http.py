"""Small parts of the judge's HTTP: addresses, headers and errors."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nashtune.errors import InputError

if TYPE_CHECKING:
    import httpx2

TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses that may be gone at the next try."""


def endpoint(url: str) -> str:
    """The address that the paths of the interface are put behind: `url`, with /v1 where it has no path of its own.

    Raises:
        InputError: it is no http address, holds a password, or is that of one path of the interface.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"oracle.url: {url!r} is no address; write it as http://localhost:8000/v1")
    if parts.username or parts.password:
        raise InputError(
            "oracle.url: the address holds a user name or password, which would be stored with the run; put the key "
            "into an environment variable and its name into oracle.api_key_env"
        )
    base = url.rstrip("/")
    if base.endswith(("/completions", "/models", "/responses")):
        raise InputError(f"oracle.url: {url} is one path of the interface; give what comes before, up to /v1")
    return base if parts.path.strip("/") else f"{base}/v1"


def transport_errors() -> tuple[type[Exception], ...]:
    """What is raised when no whole response arrives."""
    import httpx2

    return (httpx2.TransportError, httpx2.DecodingError)


def said(error: Exception) -> str:
    """An error of the connection in words; some have none of their own."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def listed_models(response: httpx2.Response) -> list[str]:
    """Names in a response to GET /models; none where it is not in the usual form."""
    try:
        return [str(entry["id"]) for entry in response.json()["data"]]
    except (ValueError, LookupError, TypeError):
        return []


def retry_after(response: httpx2.Response) -> float:
    """Seconds that the header Retry-After asks for, given as a number or a date; 0 without it."""
    given = response.headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
