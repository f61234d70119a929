"""What happened to the oracle, kept with each part of a round that it was asked for.

RUN_DIR/oracle/round-001.json        {part: {what: how often}}
RUN_DIR/oracle/round-001-0001.json   the same, of what data-parallel process 1 has asked

An oracle counts for as long as its process lives, and a run may be killed and go on in another one. So what a part cost
is written down before the part is finished in the journal, which decides whether it counts: a part that is made again
is counted once. Not in the journal itself, whose bytes are the same whether a judge's answer was kept or asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.interfaces import Oracle
from nashtune.journal.store import Journal

Entries = dict[str, dict[str, int]]


class Ledger:
    """The counts of one run's oracle.

    Args:
        folder: Where they lie; made with the first entry.
        oracle: Prepared; what it has counted so far belongs to no part. None where nobody is asked.
        writer: Number of this process among those that write, from 0.
    """

    def __init__(self, folder: Path, oracle: Oracle | None, *, writer: int = 0) -> None:
        self._folder = folder
        self._oracle = oracle
        self._ending = f"-{writer:04d}.json" if writer else ".json"
        self._seen = self._now()

    def write(self, round: int, part: str) -> None:
        """Note what the oracle has counted since the last entry; called before the part is finished in the journal.

        Args:
            round: From 1.
            part: Its name in the journal.
        """
        now = self._now()
        # also what the oracle counts and never saw: a 0 says that it looked
        new = {name: count - self._seen[name] for name, count in now.items() if not count or count != self._seen[name]}
        self._seen = now
        path = self._folder / f"round-{round:03d}{self._ending}"
        entries = _read(path)
        if new == entries.get(part, {}):
            return
        write_bytes_atomically(path, (json.dumps({**entries, part: new}, indent=2) + "\n").encode())

    def total(self, journal: Journal) -> dict[str, int]:
        """Sums over the parts that the journal holds, of all processes; on rank 0, when the others have written."""
        sums: Counter[str] = Counter()
        for round in journal.rounds():
            finished, own = journal.manifests(round), f"round-{round:03d}"
            for path in (*self._folder.glob(f"{own}.json"), *self._folder.glob(f"{own}-*.json")):
                manifest = path.name.replace(own, "manifest")  # of the process that has written both
                for part, counts in _read(path).items():
                    sums.update(counts if finished.get(part) == manifest else {})
        return dict(sums)

    def _now(self) -> Counter[str]:
        return Counter(self._oracle.counts()) if self._oracle is not None else Counter()


def _read(path: Path) -> Entries:
    try:
        entries: Entries = json.loads(path.read_text(encoding="utf-8"))
        if not all(type(count) in (int, float) for counts in entries.values() for count in counts.values()):
            raise ValueError(path)
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is torn or was altered: restore it from a copy, or move it away, and the report's oracle counts "
            "are without it"
        ) from error
    return entries
