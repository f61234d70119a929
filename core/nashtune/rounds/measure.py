"""Phase `anchor` of rollouts: their log-probs and values under the policy that drew them, and under the references.

Legend: M = completion tokens of all rollouts, one rollout after another.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nashtune.data.passes import counted, pass_tokens, split
from nashtune.interfaces import Reference, TokenBatch
from nashtune.models.mode import frozen_mode
from nashtune.rounds.rows import RolloutRow, collate
from nashtune.rounds.table import Table

MEASURED = "measured-"
"""Beginning of the names of an update's tensors in the journal."""


END = "old_value_end"  # one number for each rollout, not for each token


def measure(
    table: Table, round: int, rows: Sequence[RolloutRow], references: Mapping[str, Reference], number: int
) -> list[RolloutRow]:
    """Rollouts with `old`, `ref:NAME` and, with a critic, `old_value` of each token, from the journal where they are.

    They are kept because the live weights move with the first step of the update: a run that is taken up again in its
    middle could not compute them any more.

    Args:
        table: The game.
        round: From 1.
        rows: What the update trains on.
        references: The spec's, by name.
        number: Of the update that comes next, over the whole run.
    """
    file = f"{MEASURED}{number:06d}"
    if not table.journal.has(round, file):
        table.journal.write_tensors(round, file, _measure(table, rows, references))
    known = table.journal.read_tensors(round, file)
    sizes = [len(row.token_ids) for row in rows]
    split = {name: torch.split(values, 1 if name == END else sizes) for name, values in known.items()}
    return [replace(row, per_token={name: parts[i] for name, parts in split.items()}) for i, row in enumerate(rows)]


def _measure(table: Table, rows: Sequence[RolloutRow], references: Mapping[str, Reference]) -> dict[str, Tensor]:
    began = time.perf_counter()
    table.progress.phase("measure", len(rows), "rollouts")
    found: dict[str, dict[int, Tensor]] = {}
    budget = None if table.loss.compares_rows else pass_tokens(table.batch_tokens, table.policy.device)
    with torch.no_grad(), table.autocast(), frozen_mode(table.policy):
        for picked in _micro_batches(table, len(rows)):
            batch = collate(rows, picked)
            for one in split(batch, table.engine, budget):
                numbers = one.rows.tolist()
                sizes = [len(rows[i].token_ids) for i in numbers]
                on_device = counted(one, table.engine, {}).to(table.policy.device)
                for name, values in _of_batch(table, on_device, references).items():
                    parts = torch.split(values.float().cpu(), 1 if name == END else sizes)
                    found.setdefault(name, {}).update(zip(numbers, parts, strict=True))
            table.progress.advance(len(picked))
    table.progress.done(f"{len(rows)} rollouts, {time.perf_counter() - began:.1f} s")
    return {name: torch.cat([parts[i] for i in range(len(rows))]) for name, parts in found.items()}


def _micro_batches(table: Table, count: int) -> list[tuple[int, ...]]:
    """Those of the update's first epoch: in others, bf16 gives other log-probs, and no first ratio would be 1."""
    assert table.order is not None, "only games whose updates are known are measured"
    order = table.order(count)
    first_pass = (order.rows(index) for index in range(order.steps_per_epoch * order.accumulate))
    return [rows for rows in first_pass if rows]


def _of_batch(table: Table, batch: TokenBatch, references: Mapping[str, Reference]) -> dict[str, Tensor]:
    policy, engine = table.policy, table.engine
    features = policy.forward(batch, engine)
    found = {"old": engine.logprobs(features, batch).token_logp}
    if policy.critic is not None:
        found["old_value"], found[END] = policy.values(features, batch, engine)
    return found | {f"ref:{name}": one.logprobs(batch, engine).token_logp for name, one in references.items()}
