"""Micro-batches of an update: every row once a pass, complete windows, whatever the numbers."""

from __future__ import annotations

import math

import pytest

from nashtune.rounds.order import WindowOrder

SIZES = [(1, 1, 1), (7, 2, 1), (7, 2, 3), (12, 2, 3), (13, 2, 3), (2, 4, 4), (0, 2, 2), (100, 8, 4)]


def order(size: int, batch: int, accumulate: int, epochs: int = 2) -> WindowOrder:
    return WindowOrder(size=size, batch_size=batch, accumulate=accumulate, epochs=epochs, seed=5)


@pytest.mark.parametrize(("size", "batch", "accumulate"), SIZES)
def test_each_pass_has_every_row_once_and_complete_windows(size: int, batch: int, accumulate: int) -> None:
    one = order(size, batch, accumulate)
    assert len(one) % accumulate == 0 and len(one) == one.steps * accumulate
    assert one.steps == 2 * math.ceil(size / (batch * accumulate))
    per_pass = len(one) // 2
    for epoch in range(2):
        rows = [row for i in range(per_pass) for row in one.rows(epoch * per_pass + i)]
        assert sorted(rows) == list(range(size))


@pytest.mark.parametrize(("size", "batch", "accumulate"), SIZES)
def test_the_weight_of_a_row_is_one_over_its_window(size: int, batch: int, accumulate: int) -> None:
    """The sum over a window of rows / window_size is 1: the objective is the mean over the step's true rows."""
    one = order(size, batch, accumulate)
    for first in range(0, len(one), accumulate):
        window = range(first, first + accumulate)
        assert sum(len(one.rows(i)) / len(one.window(i)) for i in window) == pytest.approx(1.0)
        assert max(len(one.rows(i)) for i in window) <= batch


def test_a_window_with_few_rows_has_empty_micro_batches() -> None:
    one = order(2, 4, 4, epochs=1)
    assert [len(one.rows(i)) for i in range(4)] == [1, 1, 0, 0]
    assert [len(one.window(i)) for i in range(4)] == [2, 2, 2, 2]


def test_passes_are_shuffled_differently_and_repeatably() -> None:
    one = order(50, 5, 2)
    passes = [[row for i in range(10) for row in one.rows(10 * epoch + i)] for epoch in range(2)]
    assert passes[0] != passes[1]
    assert passes == [[row for i in range(10) for row in order(50, 5, 2).rows(10 * epoch + i)] for epoch in range(2)]


@pytest.mark.parametrize(("accumulate", "ranks"), [(1, 4), (2, 2), (4, 1)])
@pytest.mark.parametrize("size", [1, 3, 13, 40])
def test_a_step_has_the_same_rows_however_they_are_divided(size: int, accumulate: int, ranks: int) -> None:
    alone = order(size, 3, 4)
    shares = [
        WindowOrder(size=size, batch_size=3, accumulate=accumulate, epochs=2, seed=5, rank=rank, world_size=ranks)
        for rank in range(ranks)
    ]
    assert {one.steps for one in shares} == {alone.steps} and {len(one) for one in shares} == {alone.steps * accumulate}
    for step in range(alone.steps):
        index = step * accumulate
        held = [one.rows(index + place) for place in range(accumulate) for one in shares]
        assert [row for rows in held for row in rows] == list(alone.window(4 * step))
        assert max(map(len, held)) - min(map(len, held)) <= 1
        assert held == [alone.rows(4 * step + place) for place in range(4)], "the same micro-batches, elsewhere"
