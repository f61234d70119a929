"""Token rows become a right-padded micro-batch.

Legend: B = pairs, E = examples, L = ranked lists, N = sequences, T = positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nashtune.data.lengths import shorten
from nashtune.data.tokenise import TokenRow
from nashtune.interfaces.batch import RowKind, TokenBatch

Ids = Sequence[int]
PADDING = 0  # any id will do: padding is masked out of the attention and of the completion


def collate_pairs(batch: Sequence[tuple[int, TokenRow]]) -> TokenBatch:
    """B pairs: B chosen sequences, then B rejected ones. A comparison is a pair of answers to one question."""
    rows = [row for _, row in batch]
    sequences = [(row.prompt_ids, row.completions[k]) for k in (0, 1) for row in rows]
    return _pad(
        sequences,
        "pairs",
        [index for index, _ in batch],
        p_chosen=_column([row.p_chosen for row in rows]),
        margin=_column([row.margin for row in rows]),
    )


def collate_ranked(batch: Sequence[tuple[int, TokenRow]]) -> TokenBatch:
    """L lists: the completions of each together, best first."""
    rows = [row for _, row in batch]
    sequences = [(row.prompt_ids, completion) for row in rows for completion in row.completions]
    sizes = torch.tensor([len(row.completions) for row in rows])
    levels = torch.tensor([level for row in rows for level in row.levels or range(len(row.completions))])
    return _pad(sequences, "ranked", [index for index, _ in batch], sizes=sizes, levels=levels)


def _column(values: Sequence[float | None]) -> torch.Tensor | None:
    given = [value for value in values if value is not None]
    assert len(given) in (0, len(values)), "a column is there for all rows or for none"
    return torch.tensor(given) if given else None


class CollateExamples:
    """E examples: E sequences, then E mismatched ones: prompt i with the next completion of another prompt.

    Args:
        max_length: Tokens of a sequence. A prompt that is too long for another example's completion loses its
            beginning.
        bos: Id of the BOS token, which stays.
    """

    def __init__(self, max_length: int, bos: int | None) -> None:
        self._max_length = max_length
        self._bos = bos

    def __call__(self, batch: Sequence[tuple[int, TokenRow]]) -> TokenBatch:
        """The batch of at least two examples."""
        rows = [row for _, row in batch]
        assert len(rows) > 1, "an example needs another one's completion; see BatchOrder.least"
        own = [(row.prompt_ids, row.completions[0]) for row in rows]
        others = [_other(rows, i).completions[0] for i in range(len(rows))]
        mismatched = [(self._cut(row.prompt_ids, other), other) for row, other in zip(rows, others, strict=True)]
        desirable = torch.tensor([bool(row.desirable) for row in rows])
        return _pad([*own, *mismatched], "examples", [index for index, _ in batch], desirable=desirable)

    def _cut(self, prompt: Ids, completion: Ids) -> Ids:
        short = shorten(prompt, self._max_length - len(completion), self._bos)
        return short if short is not None else prompt[-1:]


def _other(rows: Sequence[TokenRow], i: int) -> TokenRow:
    """The next row, cyclically, that answers another prompt; the next one where all answer the same.

    Chosen and rejected answers of one prompt stand side by side: taking the neighbour would often pair a prompt with an
    answer of its own.
    """
    following = [rows[(i + step) % len(rows)] for step in range(1, len(rows))]
    return next((row for row in following if row.prompt_ids != rows[i].prompt_ids), following[0])


def completion_batch(sequences: Sequence[tuple[Ids, Ids]]) -> TokenBatch:
    """Completions on their own, for log-probs outside of training: N = E, without mismatched ones.

    Args:
        sequences: Prompt ids and completion ids.
    """
    return _pad(sequences, "examples", list(range(len(sequences))))


def _pad(
    sequences: Sequence[tuple[Ids, Ids]],
    kind: RowKind,
    rows: list[int],
    **columns: Any,
) -> TokenBatch:
    longest = max(len(prompt) + len(completion) for prompt, completion in sequences)
    input_ids = torch.full((len(sequences), longest), PADDING, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    completion_mask = torch.zeros_like(input_ids, dtype=torch.bool)
    for n, (prompt, completion) in enumerate(sequences):
        end = len(prompt) + len(completion)
        input_ids[n, :end] = torch.tensor([*prompt, *completion])
        attention_mask[n, :end] = 1
        completion_mask[n, len(prompt) : end] = True
    return TokenBatch(
        kind=kind,
        input_ids=input_ids,
        attention_mask=attention_mask,
        completion_mask=completion_mask,
        rows=torch.tensor(rows),
        **columns,
    )
