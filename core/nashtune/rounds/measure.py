"""Phase `anchor` of rollouts: their log-probs and values under the policy that drew them, and under the references.

Legend: M = completion tokens of all rollouts, one rollout after another.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nashtune.interfaces import Reference
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
    began, policy, engine = time.perf_counter(), table.policy, table.engine
    table.progress.phase("measure", len(rows), "rollouts")
    found: dict[str, list[Tensor]] = {}
    with torch.no_grad(), table.autocast(), frozen_mode(policy):
        for start in range(0, len(rows), table.batch_size):
            picked = range(start, min(start + table.batch_size, len(rows)))
            batch = collate(rows, picked).to(policy.device)
            features = policy.forward(batch, engine)
            found.setdefault("old", []).append(engine.logprobs(features, batch).token_logp)
            if policy.critic is not None:
                values_M, end_S = policy.values(features, batch, engine)
                found.setdefault("old_value", []).append(values_M)
                found.setdefault(END, []).append(end_S)
            for name, reference in references.items():
                found.setdefault(f"ref:{name}", []).append(reference.logprobs(batch, engine).token_logp)
            table.progress.advance(len(picked))
    table.progress.done(f"{len(rows)} rollouts, {time.perf_counter() - began:.1f} s")
    return {name: torch.cat(parts).float().cpu() for name, parts in found.items()}
