from __future__ import annotations

import pytest

from nashtune.data.order import BatchOrder, permutation
from nashtune.errors import InputError


def epoch_of(order: BatchOrder, epoch: int = 0) -> list[tuple[int, ...]]:
    return [order.batch(epoch, index) for index in range(len(order))]


def ranks(world_size: int, **options) -> list[BatchOrder]:
    return [BatchOrder(rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def test_the_permutation_is_the_one_that_checkpoints_rely_on() -> None:
    """Written out: another order in a later version would make old checkpoints resume on other rows."""
    assert permutation(10, 3, 0).tolist() == [9, 6, 0, 2, 1, 4, 7, 5, 3, 8]
    assert permutation(10, 3, 0).tolist() != permutation(10, 3, 1).tolist()
    assert permutation(10, 3, 0).tolist() != permutation(10, 4, 0).tolist()
    with pytest.raises(ValueError, match="read-only"):
        permutation(10, 3, 0)[0] = 5


@pytest.mark.parametrize("size", [1, 4, 9, 10, 11, 12])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_once_in_an_epoch(size, shuffle) -> None:
    order = BatchOrder(size=size, batch_size=4, shuffle=shuffle)
    batches = epoch_of(order, 5)
    assert sorted(sum(batches, ())) == list(range(size))
    assert [len(batch) for batch in batches] == [4] * (size // 4) + ([size % 4] if size % 4 else [])
    assert len(order) == -(-size // 4)


def test_a_batch_is_a_function_of_its_index() -> None:
    order = BatchOrder(size=50, batch_size=4, seed=1)
    again = BatchOrder(size=50, batch_size=4, seed=1)
    assert [order.batch(2, i) for i in (7, 3, 7)] == [again.batch(2, i) for i in (7, 3, 7)]


@pytest.mark.parametrize("size", [8, 16, 17, 22, 23, 24, 25])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_same_global_blocks(size, world_size) -> None:
    """The union over ranks of a step is the same for any number of ranks at an equal global batch of 8."""
    alone = epoch_of(BatchOrder(size=size, batch_size=8, seed=2), 1)
    shares = [epoch_of(order, 1) for order in ranks(world_size, size=size, batch_size=8 // world_size, seed=2)]
    blocks = [sum(parts, ()) for parts in zip(*shares, strict=True)]
    assert sorted(sum(blocks, ())) == list(range(size))
    assert all(part for share in shares for part in share)
    if len(alone[-1]) >= world_size:
        assert blocks == alone
    else:  # too few rows for every rank: they join the block before
        assert blocks == [*alone[:-2], alone[-2] + alone[-1]]


@pytest.mark.parametrize("size", [8, 9, 10, 11, 23])
def test_where_rows_can_be_borrowed_any_number_of_ranks_takes_the_same_steps(size) -> None:
    alone = epoch_of(BatchOrder(size=size, batch_size=8, seed=2, borrows=True), 1)
    orders = ranks(4, size=size, batch_size=2, seed=2, borrows=True)
    shares = [epoch_of(order, 1) for order in orders]
    assert [sum(parts, ()) for parts in zip(*shares, strict=True)] == alone
    for index, order in ((i, order) for i in range(len(alone)) for order in orders):
        assert order.is_empty(index) == (order.batch(1, index) == ())
        assert order.borrowed(1, index) == alone[index][:1]


def test_the_last_block_is_split_as_evenly_as_possible() -> None:
    orders = ranks(4, size=8 + 6, batch_size=2)
    assert [len(order.batch(0, 1)) for order in orders] == [2, 2, 1, 1]


def test_a_single_example_at_the_end_joins_the_batch_before() -> None:
    order = BatchOrder(size=9, batch_size=4, least=2)
    assert [len(batch) for batch in epoch_of(order)] == [4, 5]
    assert [len(batch) for batch in epoch_of(BatchOrder(size=10, batch_size=4, least=2))] == [4, 4, 2]


def test_too_few_rows() -> None:
    with pytest.raises(InputError, match="3 rows are too few for 4 ranks with at least 1 each; give 4 rows or more"):
        BatchOrder(size=3, batch_size=2, world_size=4)
    with pytest.raises(InputError, match="1 rows are too few for 1 ranks with at least 2 each"):
        BatchOrder(size=1, batch_size=2, least=2)


def test_rows_between() -> None:
    order = BatchOrder(size=11, batch_size=2, world_size=2)
    assert [order.start(i) for i in range(4)] == [0, 4, 8, 11]
    assert order.rows_between(0, 2) == 8
    assert order.rows_between(2, 4) == 3


def test_a_million_rows_are_counted_without_a_list_of_them() -> None:
    order = BatchOrder(size=1_000_001, batch_size=2, world_size=2, least=2)
    assert len(order) == 250_000  # the one row that is left joins the last micro-batch
    assert (order.start(249_999), order.start(250_000)) == (999_996, 1_000_001)
    assert order.index_at(999_996) == 249_999
    assert permutation(1_000_001, 0, 0).nbytes == 4_000_004
    assert len(order.batch(0, 249_999)) == 3


def test_index_at() -> None:
    order = BatchOrder(size=11, batch_size=4)
    assert [order.index_at(n) for n in (0, 4, 8, 11)] == [0, 1, 2, 3]
    for wrong in (3, 12, -7, -4):
        with pytest.raises(InputError, match=f"says that {wrong} of 11 rows .* was altered"):
            order.index_at(wrong)
