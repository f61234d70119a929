"""Rows of a source, checked, in the form a loss wants: pairs or examples. Importing this imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from nashtune.data.messages import RowError
from nashtune.data.parse import COLUMNS, KNOWN, RESPONSE, Example, Pair, Ranked, likeness, parse_row, row_format
from nashtune.data.sources import RawRow, read_source
from nashtune.errors import InputError

if TYPE_CHECKING:
    from nashtune.interfaces.batch import RowKind

Labels = Literal["hard", "soft"]
RankedPairs = Literal["best_worst", "adjacent", "all_pairs"]
SHOWN_ROWS = 5  # bad rows named in one error

__all__ = ["Example", "Labels", "Pair", "Ranked", "RankedPairs", "RowSet", "load_rows", "read_rows"]


@dataclass(kw_only=True)
class RowSet:
    """What a source gave.

    Args:
        source: As it was asked for.
        rows: Pairs or examples, in the source's order.
        read: Rows read.
        formats: Rows of each format (preference, unpaired, ranked).
        unused: Columns that nothing reads, with the number of rows that have them.
        duplicates: Pairs or examples that repeat an earlier one exactly.
        no_pair: Ranked rows whose scores are all equal, so that they give no pair.
        p_chosen_unused: Rows whose p_chosen is not used.
        contradictions: Rows among these with p_chosen below 0.5: the hard label says the opposite.
    """

    source: str
    rows: list[Pair] | list[Example] = field(default_factory=list)
    read: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    no_pair: int = 0
    p_chosen_unused: int = 0
    contradictions: int = 0

    def notes(self) -> list[str]:
        """What a user should know about these rows, in sentences."""
        notes = []
        if self.unused:
            notes.append(f"columns not used: {', '.join(f'{name} ({n})' for name, n in sorted(self.unused.items()))}")
        optional = {"p_chosen", "prompt", "scores"}
        for name in sorted(self.unused):
            if name not in optional and (match := likeness(name, optional)):
                notes.append(f"the column '{name}' looks like '{match}'; rename it if it is meant")
        if self.p_chosen_unused:
            notes.append(f"p_chosen of {self.p_chosen_unused} rows is not used; to use it: data.labels: soft")
        if self.contradictions:
            notes.append(f"{self.contradictions} rows have p_chosen below 0.5 although labels are hard")
        if self.duplicates:
            notes.append(f"{self.duplicates} rows repeat an earlier one exactly; they count twice")
        if self.no_pair:
            notes.append(f"{self.no_pair} ranked rows give no pair: their scores are equal")
        return notes


def load_rows(
    source: str,
    kind: RowKind = "pairs",
    labels: Labels = "hard",
    ranked_pairs: RankedPairs = "best_worst",
    limit: int | None = None,
) -> list[Pair] | list[Example]:
    """The checked rows of a source; see `read_rows`."""
    return read_rows(source, kind, labels, ranked_pairs, limit).rows


def read_rows(
    source: str,
    kind: RowKind = "pairs",
    labels: Labels = "hard",
    ranked_pairs: RankedPairs = "best_worst",
    limit: int | None = None,
) -> RowSet:
    """Read and check every row of a source.

    Args:
        source: What `read_source` takes.
        kind: What the loss trains on. Preference rows give two examples each: chosen desirable, rejected undesirable.
        labels: "soft" demands p_chosen in every row.
        ranked_pairs: Which pairs a ranked row gives; equal scores never form a pair.
        limit: Read this many rows and no more.

    Raises:
        InputError: a bad source, or bad rows: the first one in full, up to five named, and how many there are.
    """
    if kind == "examples" and ranked_pairs != "best_worst":
        raise InputError(
            f"data.ranked_pairs: {ranked_pairs} makes one answer desirable in one pair and undesirable in the next, "
            "and this loss trains on single examples; use best_worst"
        )
    found = RowSet(source=source)
    rows: list[Any] = []
    bad: list[tuple[str, str]] = []
    convert = _converter(found, kind, labels, ranked_pairs)
    for raw in islice(read_source(source), limit):
        found.read += 1
        try:
            rows += convert(raw)
        except RowError as error:
            bad.append((raw.where, str(error)))
    refuse_rows(bad)
    if not rows:
        raise InputError(f"{source}: {found.read} rows were read, and none gives a pair; {'; '.join(found.notes())}")
    found.rows = rows
    found.duplicates = len(rows) - len({_content(row) for row in rows})
    return found


def refuse_rows(bad: Sequence[tuple[str, str]]) -> None:
    """Raise `InputError` for rows (where, what is wrong), if there are any."""
    if not bad:
        return
    where, problem = bad[0]
    lines = [f"{where}: {problem}"]
    if others := bad[1:]:
        named = others[: SHOWN_ROWS - 1]
        more = f", the first {len(named)} of them" if len(others) > len(named) else ""
        lines.append(f"and {len(others)} more bad row{'s' if len(others) > 1 else ''}{more}:")
        lines += [f"  {where}: {problem}" for where, problem in named]
    raise InputError("\n".join(lines))


def _converter(
    found: RowSet, kind: RowKind, labels: Labels, ranked_pairs: RankedPairs
) -> Callable[[RawRow], list[Pair] | list[Example]]:
    def convert(raw: RawRow) -> list[Pair] | list[Example]:
        if raw.data is None:
            raise RowError(raw.problem)
        row = parse_row(raw.data, raw.where)
        _count(found, raw.data)
        if isinstance(row, Example):
            if kind == "pairs":
                raise RowError(
                    "this row is unpaired (completion, label), and the loss trains on pairs: give chosen and rejected"
                )
            return [row]
        if isinstance(row, Ranked):
            if labels == "soft":
                raise RowError(
                    "data.labels: soft needs p_chosen, and ranked rows have scores only; use data.labels: hard"
                )
            pairs = _ranked_to_pairs(row, ranked_pairs)
            found.no_pair += not pairs
        else:
            pairs = [row]
            if labels == "soft" and row.p_chosen is None:
                raise RowError(f"data.labels: soft needs 'p_chosen' in every row{_p_chosen_hint(raw.data)}")
            if row.p_chosen is not None and (labels == "hard" or kind == "examples"):
                found.p_chosen_unused += 1
                found.contradictions += row.p_chosen < 0.5
        return pairs if kind == "pairs" else [example for pair in pairs for example in _pair_to_examples(pair)]

    return convert


def _p_chosen_hint(data: Mapping[str, Any]) -> str:
    guess = next((name for name in data if name not in KNOWN and likeness(name, ("p_chosen",))), None)
    return f"; did you mean it by '{guess}'? Rename the column" if guess else "; add it, or use data.labels: hard"


def _count(found: RowSet, data: Mapping[str, Any]) -> None:
    row = {name: value for name, value in data.items() if value is not None}
    form = row_format(row)
    found.formats[form] += 1
    found.unused.update(row.keys() - set(COLUMNS[form]))
    if form == "ranked":
        inner = set().union(*(item.keys() for item in row["responses"] if isinstance(item, dict)))
        found.unused.update(f"responses.{name}" for name in inner - set(RESPONSE))


def _pairing(name: RankedPairs) -> Callable[[Sequence[float]], list[tuple[int, int]]]:
    from nashtune.pairing.scores import adjacent, all_pairs, best_worst

    return {"best_worst": best_worst, "adjacent": adjacent, "all_pairs": all_pairs}[name]


def _ranked_to_pairs(row: Ranked, ranked_pairs: RankedPairs) -> list[Pair]:
    pairs = []
    for chosen, rejected in _pairing(ranked_pairs)(row.scores):
        better, worse = row.responses[chosen], row.responses[rejected]
        if better == worse:
            raise RowError(f"responses {chosen + 1} and {rejected + 1} are identical but their scores differ")
        pairs.append(Pair(prompt=row.prompt, chosen=better, rejected=worse, p_chosen=None, where=row.where))
    return pairs


def _pair_to_examples(pair: Pair) -> list[Example]:
    labelled = ((pair.chosen, True), (pair.rejected, False))
    return [Example(prompt=pair.prompt, completion=text, desirable=label, where=pair.where) for text, label in labelled]


def _content(row: Pair | Example) -> tuple[Any, ...]:
    """Everything but where it stands."""
    return tuple(value for name, value in vars(row).items() if name != "where")
