"""What a game's update trains on: the round's pairs, or its rollouts, as token rows and micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nashtune.data.collate import collate_pairs, completion_batch
from nashtune.data.tokenise import TokenRow
from nashtune.interfaces import TokenBatch


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """A preference pair that the game made.

    Args:
        tokens: Prompt, (chosen, rejected), and p_chosen where labels are soft.
        win_rates: Of chosen and rejected against the policy that drew them, where all completions were compared.
        variances: Of the rewards of chosen and rejected, where the oracle knows them.
    """

    tokens: TokenRow
    win_rates: tuple[float, float] | None = None
    variances: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class RolloutRow:
    """A completion that the policy drew, and what the oracle said of it.

    Args:
        prompt_ids: The prompt.
        token_ids: The completion, EOS included where it was drawn.
        score: P(y > y') against an opponent's completion, or a reward.
        where: "round 3, prompt 17, completion 0".
        variance: Of the reward, where the oracle knows it.
        group: Number of the prompt in the whole prompt set.
        finished: Whether it ended by EOS or a stop string, and not at the length limit.
        sampled_logp: Log-prob of each token as the sampler gave it; empty where it did not.
        beta: From the KL controller, fixed before the update.
        per_token: What was computed for each token before the update; see `TokenBatch.per_token`.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    score: float
    where: str
    variance: float | None = None
    group: int = 0
    finished: bool = True
    sampled_logp: tuple[float, ...] = ()
    beta: float | None = None
    per_token: Mapping[str, Tensor] = field(default_factory=dict)


Rows = Sequence[PairRow] | Sequence[RolloutRow]


def collate(rows: Rows, indices: Sequence[int]) -> TokenBatch:
    """The micro-batch of some rows, all of one kind."""
    picked = [rows[i] for i in indices]
    pairs = [row for row in picked if isinstance(row, PairRow)]
    if pairs:
        batch = collate_pairs([(i, row.tokens) for i, row in zip(indices, pairs, strict=True)])
        return replace(
            batch,
            win_rate=_sides([row.win_rates for row in pairs]),
            variance=_sides([row.variances for row in pairs]),
        )
    return _collate_rollouts([row for row in picked if isinstance(row, RolloutRow)], indices)


def _sides(values: Sequence[tuple[float, float] | None]) -> Tensor | None:
    """Values of B chosen completions, then those of B rejected ones; None where a pair has none."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return torch.tensor([*(chosen for chosen, _ in known), *(rejected for _, rejected in known)])


def _collate_rollouts(rollouts: Sequence[RolloutRow], indices: Sequence[int]) -> TokenBatch:
    batch = completion_batch([(row.prompt_ids, row.token_ids) for row in rollouts])
    variances = [row.variance for row in rollouts if row.variance is not None]
    betas = [row.beta for row in rollouts if row.beta is not None]
    return replace(
        batch,
        kind="rollouts",
        rows=torch.tensor(list(indices)),
        score=torch.tensor([row.score for row in rollouts]),
        variance=torch.tensor(variances) if len(variances) == len(rollouts) else None,
        group=torch.tensor([row.group for row in rollouts]),
        finished=torch.tensor([row.finished for row in rollouts]),
        beta=torch.tensor(betas) if len(betas) == len(rollouts) else None,
        per_token={name: torch.cat([row.per_token[name] for row in rollouts]) for name in rollouts[0].per_token},
    )


def where(row: PairRow | RolloutRow) -> str:
    """A row's place, for messages."""
    return row.tokens.where if isinstance(row, PairRow) else row.where
