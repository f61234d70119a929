"""Rows of a source, checked, in the form a loss wants. Importing this imports no torch."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from nashtune.data.bad import BadRows, refuse_rows
from nashtune.data.columns import COLUMNS, RESPONSE, likeness, not_used, row_format
from nashtune.data.convert import Converter, Labels, RankedPairs
from nashtune.data.messages import RowError
from nashtune.data.parse import Example, Pair, Ranked, parse_row
from nashtune.data.sources import RawRow, read_source
from nashtune.errors import InputError

if TYPE_CHECKING:
    from nashtune.interfaces.batch import RowKind

Row = Pair | Example | Ranked

__all__ = [
    "Example",
    "Labels",
    "Pair",
    "Ranked",
    "RankedPairs",
    "Row",
    "RowSet",
    "load_rows",
    "read_rows",
    "refuse_rows",
    "stream_rows",
]


@dataclass(kw_only=True)
class RowSet:
    """What a source gave.

    Args:
        source: As it was asked for.
        kind: What the loss trains on.
        rows: Pairs, examples or ranked lists, in the source's order; pairs also for comparisons, which show each of
            them in both orders. Empty where they were streamed.
        read: Rows read.
        given: Pairs, examples or ranked lists that they gave.
        formats: Rows of each format (preference, unpaired, ranked).
        unused: Columns that nothing reads, with the number of rows that have them.
        used: Columns that are read, with the number of rows that have them.
        duplicates: Pairs, examples or lists that repeat an earlier one exactly.
        no_pair: Ranked rows whose scores are all equal, so that they give no pair and no list.
        ties: Ranked lists in which some scores are equal; nothing is learnt of which of these answers is better.
        p_chosen_unused: Rows whose p_chosen is not used.
        contradictions: Rows among these with p_chosen below 0.5: the hard label says the opposite.
        margins: Pairs with a margin that is read.
    """

    source: str
    kind: RowKind = "pairs"
    rows: list[Pair] | list[Example] | list[Ranked] = field(default_factory=list)
    read: int = 0
    given: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    no_pair: int = 0
    ties: int = 0
    p_chosen_unused: int = 0
    contradictions: int = 0
    margins: int = 0

    @property
    def training_rows(self) -> int:
        """Rows that a loss gets: two of each pair where both orders are shown."""
        return self.given * (2 if self.kind == "comparisons" else 1)

    def notes(self) -> list[str]:
        """What a user should know about these rows, in sentences."""
        notes = []
        if self.unused:
            notes.append(not_used(self.unused, self.read))
        optional = {name for name in ("p_chosen", "margin", "prompt", "scores") if self.used[name] < self.read}
        for name in sorted(self.unused):
            if name not in optional and (match := likeness(name, optional)):
                notes.append(f"the column '{name}' looks like '{match}'; rename it if it is meant")
        if self.p_chosen_unused:
            notes.append(f"p_chosen of {self.p_chosen_unused} rows is not used; to use it: data.labels: soft")
        if self.contradictions:
            notes.append(f"{self.contradictions} rows have p_chosen below 0.5 although labels are hard")
        if self.duplicates:
            notes.append(f"{self.duplicates} rows repeat an earlier one exactly; each of them counts")
        if self.no_pair:
            notes.append(f"{self.no_pair} ranked rows give no pair: their scores are equal")
        if self.ties:
            notes.append(f"{self.ties} ranked lists have equal scores; these answers are not compared")
        return notes


def load_rows(
    source: str,
    kind: RowKind = "pairs",
    labels: Labels = "hard",
    ranked_pairs: RankedPairs = "best_worst",
    limit: int | None = None,
) -> list[Pair] | list[Example] | list[Ranked]:
    """The checked rows of a source; see `read_rows`."""
    return read_rows(source, kind, labels, ranked_pairs, limit).rows


def read_rows(
    source: str,
    kind: RowKind = "pairs",
    labels: Labels = "hard",
    ranked_pairs: RankedPairs = "best_worst",
    limit: int | None = None,
    *,
    uses_margin: bool = False,
) -> RowSet:
    """Read and check every row of a source.

    Args:
        source: What `read_source` takes.
        kind: What the loss trains on. Preference rows give two examples each: chosen desirable, rejected undesirable;
            as a ranked list they are one of two.
        labels: "soft" demands p_chosen in every row.
        ranked_pairs: Which pairs a ranked row gives; equal scores never form a pair.
        limit: Read this many rows and no more.
        uses_margin: Whether the loss reads the column `margin`; then every row has one, or none.

    Raises:
        InputError: a bad source, or bad rows: the first one in full, up to five named, and how many there are.
    """
    found = RowSet(source=source, kind=kind)
    rows = stream_rows(found, labels, ranked_pairs, limit, uses_margin=uses_margin)
    found.rows = list(rows)  # type: ignore[assignment]  # one kind, as asked
    return found


def stream_rows(
    found: RowSet, labels: Labels, ranked_pairs: RankedPairs, limit: int | None, *, uses_margin: bool
) -> Iterator[Row]:
    """The rows that `read_rows` would give, one by one; none after the first bad one.

    Args:
        found: Says the source and the kind; counts go into it, complete when the rows have ended.
        labels: As for `read_rows`.
        ranked_pairs: As for `read_rows`.
        limit: As for `read_rows`.
        uses_margin: As for `read_rows`.

    Raises:
        InputError: as `read_rows` does, bad rows when all have been read.
    """
    if found.kind == "examples" and ranked_pairs != "best_worst":
        raise InputError(
            f"data.ranked_pairs: {ranked_pairs} makes one answer desirable in one pair and undesirable in the next, "
            "and this loss trains on single examples; use best_worst"
        )
    bad, repeats = BadRows(), _Repeats()
    convert = Converter(found, found.kind, labels, ranked_pairs, uses_margin)
    for raw in islice(read_source(found.source), limit):
        found.read += 1
        try:
            rows = _convert(raw, convert, found, uses_margin)
        except RowError as error:
            bad.add(raw.where, str(error))
            continue
        found.given += len(rows)
        for row in rows:
            repeats.add(row)
            if not bad:
                yield row
    bad.refuse()
    if not found.given:
        raise InputError(
            f"{found.source}: {found.read} rows were read, and none gives a pair; {'; '.join(found.notes())}"
        )
    if found.margins not in (0, found.given):
        raise InputError(
            f"{found.source}: {found.margins} of {found.given} pairs have a margin; give it in every row (0 asks for "
            "none), or leave the column out"
        )
    found.duplicates = repeats.count()


def _convert(raw: RawRow, convert: Converter, found: RowSet, uses_margin: bool) -> Sequence[Pair | Example | Ranked]:
    if raw.data is None:
        raise RowError(raw.problem)
    row = parse_row(raw.data, raw.where)
    given = {name: value for name, value in raw.data.items() if value is not None}
    form = row_format(given)
    found.formats[form] += 1
    read = set(COLUMNS[form]) - (set() if uses_margin else {"margin"})
    found.unused.update(given.keys() - read)
    found.used.update(given.keys() & read)
    if form == "ranked":
        inner = set().union(*(item.keys() for item in given["responses"] if isinstance(item, dict)))
        found.unused.update(f"responses.{name}" for name in inner - set(RESPONSE))
    return convert(row, given)


class _Repeats:
    """Counts rows that repeat an earlier one, by eight bytes of a hash each: a million rows take 8 MB."""

    def __init__(self) -> None:
        self._seen = array("Q")

    def add(self, row: Row) -> None:
        content = repr([value for name, value in vars(row).items() if name != "where"])
        digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._seen.frombytes(digest)

    def count(self) -> int:
        ordered = sorted(self._seen)
        return sum(one == other for one, other in pairwise(ordered))
