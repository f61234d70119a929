"""Counted passes against those that training makes of the same rows."""

from __future__ import annotations

import random

import numpy as np
import pytest

from nashtune.data.order import BatchOrder
from nashtune.data.split import rows_of_passes, select
from nashtune.logprobs import get_engine
from nashtune.memory.lengths import RowLengths
from nashtune.memory.passes import Batching, training_passes
from nashtune.testing import token_batch


@pytest.mark.parametrize("engine", ["tiled", "packed", "shared"])
@pytest.mark.parametrize("budget", [None, 150, 400])
def test_passes_are_those_of_the_run(engine: str, budget: int | None) -> None:
    draw = random.Random(3)
    rows = [(draw.randint(8, 40), draw.randint(5, 60), draw.randint(5, 60)) for _ in range(21)]
    prompt, first, second = (np.array(column) for column in zip(*rows, strict=True))
    lengths = RowLengths(
        prompt=prompt, longest=np.maximum(first, second), total=first + second, completions=np.full(21, 2)
    )
    order = BatchOrder(size=21, batch_size=6, seed=5)
    counted = [
        (one.positions, one.targets, one.accumulates)
        for one in training_passes(lengths, order, Batching(engine=engine, budget=budget), None)
    ]
    made = []
    runs = get_engine(engine)
    for index in range(len(order)):
        batch = same_prompts([rows[row] for row in order.batch(0, index)])
        parts = [list(range(len(batch)))] if budget is None else rows_of_passes(batch, runs, budget)
        for number, part in enumerate(parts):
            at = runs.plan(select(batch, part))
            made.append((at.positions, at.num_targets, number > 0))
    assert counted == made


def same_prompts(rows):
    """Pairs of random tokens; both answers stand behind the same prompt."""
    chosen = [(prompt, answer) for prompt, answer, _ in rows]
    rejected = [(prompt, answer) for prompt, _, answer in rows]
    batch = token_batch([*chosen, *rejected])
    for i, (prompt, _) in enumerate(chosen):
        other = len(rows) + i
        batch.input_ids[other, :prompt] = batch.input_ids[i, :prompt]
        # so that no token of the answers is shared by chance
        batch.input_ids[i, prompt], batch.input_ids[other, prompt] = 6, 7
    return batch


def test_a_run_that_ends_early_has_fewer_batches() -> None:
    ones = np.ones(10, dtype=np.int64)
    lengths = RowLengths(prompt=ones, longest=np.arange(10), total=2 * np.arange(10), completions=2 * ones)
    order = BatchOrder(size=10, batch_size=2, seed=0)
    few = list(training_passes(lengths, order, Batching(engine="shared", budget=None), 2))
    assert len(few) == 2
    seen = [row for index in (0, 1) for row in order.batch(0, index)]
    assert sum(one.positions for one in few) == 4 + 2 * sum(seen)


def test_mismatched_answers_come_on_top() -> None:
    ones = np.ones(4, dtype=np.int64)
    lengths = RowLengths(prompt=10 * ones, longest=5 * ones, total=5 * ones, completions=ones)
    order = BatchOrder(size=4, batch_size=4, seed=0, least=2)
    (one,) = training_passes(lengths, order, Batching(engine="tiled", budget=None, mismatched=True), None)
    assert (one.positions, one.targets) == (8 * 15, 8 * 5)
