"""Collects everything that is wrong with an input, so that one run of `check` names all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nashtune.errors import InputError


class Findings(InputError):
    """Several things are wrong; the text has one line for each.

    Attributes:
        lines: One message each.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Collector:
    """Holds findings until `close` raises them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Note one finding; the same one only once."""
        if line not in self.lines:
            self.lines.append(line)

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Note the InputError of a block and go on after it."""
        try:
            yield
        except Findings as error:
            for line in error.lines:
                self.add(line)
        except InputError as error:
            self.add(str(error))

    def close(self) -> None:
        """Raise what was noted.

        Raises:
            InputError: anything was noted; with several findings a `Findings`.
        """
        if len(self.lines) == 1:
            raise InputError(self.lines[0])
        if self.lines:
            raise Findings(self.lines)
