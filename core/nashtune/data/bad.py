"""Rows that cannot be used: the first ones are named, all are counted. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from nashtune.errors import InputError

SHOWN_ROWS = 5  # bad rows named in one error


class BadRows:
    """Collects what is wrong with rows; a million bad rows take no more memory than five."""

    def __init__(self) -> None:
        self._shown: list[tuple[str, str]] = []
        self._count = 0

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._count > 0

    def add(self, where: str, problem: str) -> None:
        """Note a row.

        Args:
            where: `file:line`.
            problem: What is wrong, and what to do.
        """
        self._count += 1
        if len(self._shown) < SHOWN_ROWS:
            self._shown.append((where, problem))

    def refuse(self) -> None:
        """Raise `InputError` for these rows, if there are any: the first in full, up to five named."""
        if not self._count:
            return
        lines = [": ".join(self._shown[0])]
        if others := self._count - 1:
            named = self._shown[1:]
            more = f", the first {len(named)} of them" if others > len(named) else ""
            lines.append(f"and {others} more bad row{'s' if others > 1 else ''}{more}:")
            lines += [f"  {where}: {problem}" for where, problem in named]
        raise InputError("\n".join(lines))


def refuse_rows(found: Iterable[tuple[str, str]]) -> None:
    """Raise `InputError` for rows (where, what is wrong), if there are any."""
    bad = BadRows()
    for where, problem in found:
        bad.add(where, problem)
    bad.refuse()
