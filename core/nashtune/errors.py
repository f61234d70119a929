"""One exception for everything a user can put right; the command line turns it into a message and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


class InputError(ValueError):
    """The input was wrong: says where, what was found, what is allowed, the nearest match and the next step.

    Attributes:
        afterwards: What the command still does when it has printed the message; None for nothing.
    """

    afterwards: Callable[[], object] | None = None


class CheckFailed(Exception):
    """A check ran and its answer is no (exit code 1), as opposed to an input that could not be checked."""


class Interrupted(Exception):
    """A signal stopped a command; the message says how to go on.

    Args:
        message: What was reached and the next step.
        code: Exit code, 128 + signal as shells count.
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'beta'? (known: beta, epsilon)`, for the end of a message."""
    names = sorted(set(known))
    match = difflib.get_close_matches(word, names, n=1)
    guess = f"; did you mean '{match[0]}'?" if match else ""
    return f"{guess} (known: {', '.join(names) or 'none'})"
