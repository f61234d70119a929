"""Parsed rows become what a loss trains on: pairs, examples or ranked lists. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from nashtune.data.columns import KNOWN, likeness
from nashtune.data.messages import RowError
from nashtune.data.parse import Example, Pair, Ranked, parse_margin

if TYPE_CHECKING:
    from nashtune.data.rows import RowSet
    from nashtune.interfaces.batch import RowKind

Labels = Literal["hard", "soft"]
RankedPairs = Literal["best_worst", "adjacent", "all_pairs"]

WANTED = {
    "pairs": "pairs: give chosen and rejected",
    "comparisons": "pairs: give chosen and rejected",
    "ranked": "ranked lists: give responses and scores, or chosen and rejected",
}
"""Kind of a loss that single examples do not serve -> what it trains on."""


class Converter:
    """Converts rows one by one, and counts what is worth a note.

    Args:
        found: Where the counts go.
        kind: What the loss trains on.
        labels: "soft" demands p_chosen in every row.
        ranked_pairs: Which pairs a ranked row gives.
        uses_margin: Whether the loss reads the column `margin`.
    """

    def __init__(
        self, found: RowSet, kind: RowKind, labels: Labels, ranked_pairs: RankedPairs, uses_margin: bool
    ) -> None:
        self._found = found
        self._kind = kind
        self._labels = labels
        self._ranked_pairs: RankedPairs = ranked_pairs
        self._uses_margin = uses_margin

    def __call__(
        self, row: Pair | Example | Ranked, columns: Mapping[str, Any]
    ) -> Sequence[Pair] | Sequence[Example] | Sequence[Ranked]:
        """The training rows of one row.

        Args:
            row: As `parse_row` reads it.
            columns: Its columns, for `margin` and for hints.

        Raises:
            RowError: the row cannot serve the loss.
        """
        if isinstance(row, Example):
            if self._kind != "examples":
                raise RowError(f"this row is unpaired (completion, label), and the loss trains on {WANTED[self._kind]}")
            return [row]
        if isinstance(row, Ranked):
            return self._ranked(row)
        pair = self._pair(row, columns)
        if self._kind == "ranked":
            return [
                Ranked(prompt=pair.prompt, responses=(pair.chosen, pair.rejected), scores=(1.0, 0.0), where=pair.where)
            ]
        return [pair] if self._kind != "examples" else _pair_to_examples(pair)

    def _pair(self, pair: Pair, columns: Mapping[str, Any]) -> Pair:
        if self._labels == "soft" and pair.p_chosen is None:
            raise RowError(f"data.labels: soft needs 'p_chosen' in every row{_p_chosen_hint(columns)}")
        if pair.p_chosen is not None and (self._labels == "hard" or self._kind == "examples"):
            self._found.p_chosen_unused += 1
            self._found.contradictions += pair.p_chosen < 0.5
        if self._uses_margin and "margin" in columns:
            self._found.margins += 1
            return replace(pair, margin=parse_margin(columns["margin"]))
        return pair

    def _ranked(self, row: Ranked) -> Sequence[Pair] | Sequence[Example] | Sequence[Ranked]:
        if self._labels == "soft":
            raise RowError("data.labels: soft needs p_chosen, and ranked rows have scores only; use data.labels: hard")
        if self._kind == "ranked":
            return self._best_first(row)
        pairs = _ranked_to_pairs(row, self._ranked_pairs)
        self._found.no_pair += not pairs
        if self._kind != "examples":
            return pairs
        return [example for pair in pairs for example in _pair_to_examples(pair)]

    def _best_first(self, row: Ranked) -> list[Ranked]:
        """The list in the order of its scores; none where all are equal, because it ranks nothing."""
        levels = len(set(row.scores))
        if levels == 1:
            self._found.no_pair += 1
            return []
        self._found.ties += levels < len(row.scores)
        order = sorted(range(len(row.scores)), key=lambda i: -row.scores[i])
        responses = tuple(row.responses[i] for i in order)
        _refuse_twins(responses)
        return [replace(row, responses=responses, scores=tuple(row.scores[i] for i in order))]


def _refuse_twins(responses: Sequence[str]) -> None:
    if len(set(responses)) < len(responses):
        text = next(text for i, text in enumerate(responses) if text in responses[:i])
        raise RowError(f"two responses are identical ({text[:60]!r}), and a list ranks each answer once; remove one")


def _p_chosen_hint(columns: Mapping[str, Any]) -> str:
    guess = next((name for name in columns if name not in KNOWN and likeness(name, ("p_chosen",))), None)
    return f"; did you mean it by '{guess}'? Rename the column" if guess else "; add it, or use data.labels: hard"


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
