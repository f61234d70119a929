"""Phase `anchor` of rollouts: their log-probs and values under the policy that drew them, and under the references.

Legend: M = completion tokens of all rollouts, one rollout after another.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from nashtune.data.passes import counted, pass_tokens, split
from nashtune.interfaces import Reference, TokenBatch
from nashtune.models.mode import frozen_mode
from nashtune.ranks import most, of_this_rank, together
from nashtune.rounds.rows import RolloutRow, collate
from nashtune.rounds.shares import shared
from nashtune.rounds.table import Table
from nashtune.rounds.tensors import END, ROWS, wrong_measured

MEASURED = "measured-"
"""Beginning of the names of an update's tensors in the journal."""


def measure(
    table: Table,
    round: int,
    rows: Sequence[RolloutRow],
    references: Mapping[str, Reference],
    number: int,
    *,
    complete: bool,
) -> list[RolloutRow]:
    """Rollouts with `old`, `ref:NAME` and, with a critic, `old_value` of each token, from the journal where they are.

    Each rank measures what it trains on first. They are kept because the live weights move with the first step of the
    update: a run that is taken up again in its middle could not compute them any more.

    Args:
        table: The game.
        round: From 1.
        rows: What the update trains on.
        references: The spec's, by name.
        number: Of the update that comes next, over the whole run.
        complete: Whether the update has begun: what is missing is an error.
    """
    own = _micro_batches(table, len(rows))

    def make(missing: list[int]) -> dict[str, Tensor]:
        wanted = set(missing)
        picked = [tuple(i for i in batch if i in wanted) for batch in own]
        return _measure(table, rows, references, [batch for batch in picked if batch])

    share = [i for batch in own for i in batch]
    lengths = [len(row.token_ids) for row in rows]
    wrong = partial(wrong_measured, names=["old", *(f"ref:{name}" for name in references)], lengths=lengths)
    file = f"{MEASURED}{number:06d}"
    found = shared(table, round, file, share, make, count=len(rows), wrong=wrong, complete=complete)
    per_row: dict[int, dict[str, Tensor]] = {}
    for one in found:
        numbers = one.pop(ROWS).tolist()
        sizes = [len(rows[i].token_ids) for i in numbers]
        parts = {name: torch.split(values, 1 if name == END else sizes) for name, values in one.items()}
        per_row |= {row: {name: parts[name][at] for name in parts} for at, row in enumerate(numbers)}
    return [replace(row, per_token=per_row[i]) for i, row in enumerate(rows)]


def _measure(
    table: Table,
    rows: Sequence[RolloutRow],
    references: Mapping[str, Reference],
    batches: Sequence[tuple[int, ...]],
) -> dict[str, Tensor]:
    """Tensors of the batches' rows, by name, one row after another in the order of their numbers."""
    began = time.perf_counter()
    table.progress.phase("measure", sum(map(len, batches)), of_this_rank("rollouts"))
    found: dict[str, dict[int, Tensor]] = {}
    budget = (
        None if table.loss.compares_rows else pass_tokens(table.batch_tokens, table.policy.device, table.policy.model)
    )
    passes = [one for picked in batches for one in split(collate(rows, picked), table.engine, budget)]
    again = 0
    if table.policy.sharding is not None:  # references may be cut up: all ranks run them as often as any one must
        again = most(len(passes)) - len(passes)
    idle = collate(rows, (0,)) if again else None
    with (
        table.policy.inference_model(),
        torch.no_grad(),
        table.autocast(),
        frozen_mode(table.policy),
        together("measure"),
    ):
        for one in passes:
            numbers = one.rows.tolist()
            sizes = [len(rows[i].token_ids) for i in numbers]
            for name, values in _of_pass(table, one, references).items():
                parts = torch.split(values.float().cpu(), 1 if name == END else sizes)
                found.setdefault(name, {}).update(zip(numbers, parts, strict=True))
            table.progress.advance(len(numbers))
        for _ in range(again):
            _of_pass(table, cast(TokenBatch, idle), references)
    table.progress.done(f"{len(rows)} rollouts, {time.perf_counter() - began:.1f} s")
    return {name: torch.cat([parts[i] for i in sorted(parts)]) for name, parts in found.items()}


def _micro_batches(table: Table, count: int) -> list[tuple[int, ...]]:
    """This rank's of the update's first epoch: in others, bf16 gives other log-probs, and no first ratio would be 1."""
    assert table.order is not None, "only games whose updates are known are measured"
    order = table.order(count)
    first_pass = (order.rows(index) for index in range(order.steps_per_epoch * order.accumulate))
    return [rows for rows in first_pass if rows]


def _of_pass(table: Table, batch: TokenBatch, references: Mapping[str, Reference]) -> dict[str, Tensor]:
    policy, engine = table.policy, table.engine
    batch = counted(batch, engine, {}).to(policy.device)
    features = policy.forward(batch, engine)
    found = {"old": engine.logprobs(features, batch).token_logp}
    if policy.critic is not None:
        found["old_value"], found[END] = policy.values(features, batch, engine)
    return found | {f"ref:{name}": one.logprobs(batch, engine).token_logp for name, one in references.items()}
