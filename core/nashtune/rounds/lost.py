"""What is gone from the journal and cannot be made again, as that of a round that was trained on already."""

from __future__ import annotations

from collections.abc import Iterable

from nashtune.errors import InputError
from nashtune.ranks import together
from nashtune.rounds.table import Table

TRAINED = "the run has trained on this round already: made again it would come from other weights"


def require(table: Table, round: int, names: Iterable[str]) -> None:
    """Look whether everything is there; all ranks do.

    Args:
        table: The game.
        round: From 1.
        names: What the journal must hold, without suffix.

    Raises:
        InputError: it does not, in which round, and what to do.
    """
    with together("journal"):
        finished = set(table.journal.names(round))
        gone = [name for name in names if name not in finished]
        if gone:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            raise lost(table, round, f"{gone[0]}{more}")


def lost(table: Table, round: int, what: str, why: str = TRAINED) -> InputError:
    """The error that refuses to go on without a part of a round, and says why."""
    return InputError(
        f"{table.journal.folder}, round {round}: no manifest*.json there names {what}, and {why}. Restore the files "
        "and all manifests of the round from a copy, or start a new run with another --run_dir"
    )
