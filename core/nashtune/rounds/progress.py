"""How the phases of a game say where they are; `nashtune.training.bars` shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a game reports to. Optimiser steps of an update are seen by itself and not reported by `advance`."""

    def round(self, number: int, total: int) -> None:
        """A round begins; number 0 is for work that belongs to no round."""

    def phase(self, name: str, total: int | None = None, unit: str = "") -> None:
        """A phase begins, and one that is not over ends.

        Args:
            name: "collect main@1", "update aux", ...
            total: How much there is to do; None where nobody knows.
            unit: Of what: "completions", "steps", ...
        """

    def advance(self, by: int = 1) -> None:
        """So much more of the phase is done."""

    def done(self, note: str) -> None:
        """The phase is over; `note` says what came of it: "96 completions, 812 tokens, 21.3 s"."""

    def close(self) -> None:
        """Nothing more is shown until another phase begins."""


class NoProgress:
    """Shows nothing."""

    def round(self, number: int, total: int) -> None:
        """See `Progress`."""

    def phase(self, name: str, total: int | None = None, unit: str = "") -> None:
        """See `Progress`."""

    def advance(self, by: int = 1) -> None:
        """See `Progress`."""

    def done(self, note: str) -> None:
        """See `Progress`."""

    def close(self) -> None:
        """See `Progress`."""
