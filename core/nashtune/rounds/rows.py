"""What a game's update trains on: the round's pairs, or its rollouts, as token rows and micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from nashtune.data.collate import collate_pairs, completion_batch
from nashtune.data.tokenise import TokenRow
from nashtune.interfaces import TokenBatch


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """A preference pair that the game made.

    Args:
        tokens: Prompt, (chosen, rejected), and p_chosen where labels are soft.
        win_rates: Of chosen and rejected against the policy that drew them, where all completions were compared.
    """

    tokens: TokenRow
    win_rates: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class RolloutRow:
    """A completion that the policy drew, and what the oracle said of it.

    Args:
        prompt_ids: The prompt.
        token_ids: The completion, EOS included where it was drawn.
        score: P(y > y') against an opponent's completion.
        where: "round 3, prompt 17, completion 0".
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    score: float
    where: str


Rows = Sequence[PairRow] | Sequence[RolloutRow]


def collate(rows: Rows, indices: Sequence[int]) -> TokenBatch:
    """The micro-batch of some rows, all of one kind."""
    picked = [rows[i] for i in indices]
    pairs = [row for row in picked if isinstance(row, PairRow)]
    if pairs:
        batch = collate_pairs([(i, row.tokens) for i, row in zip(indices, pairs, strict=True)])
        rates = [row.win_rates for row in pairs if row.win_rates is not None]
        if not rates:
            return batch
        return replace(batch, win_rate=torch.tensor([*(w for w, _ in rates), *(loser for _, loser in rates)]))
    rollouts = [row for row in picked if isinstance(row, RolloutRow)]
    batch = completion_batch([(row.prompt_ids, row.token_ids) for row in rollouts])
    return replace(
        batch,
        kind="rollouts",
        rows=torch.tensor(list(indices)),
        score=torch.tensor([row.score for row in rollouts]),
    )


def where(row: PairRow | RolloutRow) -> str:
    """A row's place, for messages."""
    return row.tokens.where if isinstance(row, PairRow) else row.where
