"""A plugin that takes a name of nashtune's own, and brings one of its own."""

from __future__ import annotations

from nashtune.interfaces import Pairing, Pairs
from nashtune.plugins import Component, hookimpl


class Mine(Pairing):
    """What both names stand for: it compares nothing."""

    def compare(self, n, random):
        yield []
        return Pairs(pairs=(), dropped={})

    def most(self, n):
        return 0, 0


@hookimpl
def nashtune_components() -> list[Component]:
    """Two pairings; nashtune has the first name already."""
    return [
        Component("pairing", "best_worst", "duplicate_losses:Mine"),
        Component("pairing", "duplicates_own", "duplicate_losses:Mine"),
    ]
