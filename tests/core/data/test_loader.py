from __future__ import annotations

import json
from itertools import chain
from typing import Any

import pytest

from nashtune.data.loader import RowLoader, TrainLoader
from nashtune.data.order import BatchOrder
from nashtune.data.tokenise import TokenRow
from nashtune.errors import InputError


class Counter:
    """Stands in for the trainer's count of processed batches."""

    def __init__(self) -> None:
        self.processed = 0

    def __call__(self) -> int:
        return self.processed


def make(counter: Counter, *, size: int = 10, batch_size: int = 4, world_size: int = 1, **more: Any) -> TrainLoader:
    rows = [TokenRow(prompt_ids=(1,), completions=((2,),), where="", prompt_text="") for _ in range(size)]
    options = {"per_epoch": 99, "fingerprint": "f", **more}
    seed = options.pop("seed", 0)
    order = BatchOrder(size=size, batch_size=batch_size, world_size=world_size, seed=seed)
    options["per_epoch"] = min(options["per_epoch"], len(order))
    return TrainLoader(rows, order, lambda batch: [index for index, _ in batch], processed=counter, **options)


def consume(loader: TrainLoader, counter: Counter, n: int) -> list[Any]:
    """Process n batches, over as many passes as it takes, while the iterator is one batch ahead."""
    seen: list[Any] = []
    while len(seen) < n:
        batches = list(loader)
        # the whole pass was handed out before anything was processed
        for batch in batches[: n - len(seen)]:
            seen.append(batch)
            counter.processed += 1
    return seen


@pytest.mark.parametrize("stop", range(10))
def test_a_loader_goes_on_where_another_one_stopped(stop) -> None:
    whole = consume(make(Counter()), Counter(), 9)
    first, counted = Counter(), make
    loader = counted(first)
    before = consume(loader, first, stop)
    state = json.loads(json.dumps(loader.state_dict()))
    assert (state["epoch"], state["samples"]) == (stop // 3, (0, 4, 8)[stop % 3])
    second = Counter()
    second.processed = first.processed  # as a trainer that was restored
    resumed = make(second)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == loader.state_dict()
    assert before + consume(resumed, second, 9 - stop) == whole if stop < 9 else before == whole


def test_epochs_differ_and_have_every_row() -> None:
    counter = Counter()
    loader = make(counter)
    seen = consume(loader, counter, 6)
    assert sorted(chain(*seen[:3])) == sorted(chain(*seen[3:])) == list(range(10))
    assert seen[:3] != seen[3:]
    assert len(loader) == 3


def test_an_iterator_that_is_dropped_does_not_count() -> None:
    loader = make(Counter())
    iter(loader)
    assert loader.position() == (0, 0)
    assert next(iter(loader)) == next(iter(make(Counter())))


def test_what_was_handed_out_but_not_processed_is_not_consumed() -> None:
    counter = Counter()
    loader = make(counter)
    handed_out = iter(loader)
    next(handed_out), next(handed_out)
    counter.processed = 1
    assert loader.state_dict()["samples"] == 4


def test_a_limited_epoch_ends_early() -> None:
    counter = Counter()
    loader = make(counter, per_epoch=2)
    batches = iter(loader)
    next(batches), next(batches)
    counter.processed = 2
    assert (loader.state_dict()["epoch"], loader.state_dict()["samples"]) == (1, 0)
    assert len(loader) == 3


def test_the_state_counts_rows_on_all_ranks() -> None:
    """Two ranks with a batch of 2 stop; one rank with a batch of 4 goes on at the same row."""
    counter = Counter()
    two = make(counter, batch_size=2, world_size=2)
    next(iter(two))
    counter.processed = 1
    alone = make(Counter(), batch_size=4)
    alone.load_state_dict(two.state_dict())
    assert alone.position() == (0, 1)


def test_steps_with_the_same_rows_go_on_in_other_micro_batches() -> None:
    """One rank with 4 micro-batches of 2 stops after a step; two ranks with 2 of them, and one with 1 of 8, go on."""
    counter = Counter()
    four = make(counter, size=21, batch_size=2, accumulate=4)
    consume(four, counter, 4)
    state = four.state_dict()
    assert four.passed(True) == (4, 4)
    for options, place in (({"world_size": 2, "accumulate": 2}, 2), ({"batch_size": 8}, 1)):
        other = make(Counter(), size=21, **{"batch_size": 2, **options})
        other.load_state_dict(state)
        assert (other.position(), other.passed(True)) == ((0, place), (place, place))
        with pytest.raises(InputError, match="compares the rows of a micro-batch"):
            make(Counter(), size=21, compares_rows=True, **{"batch_size": 2, **options}).load_state_dict(state)


def test_an_epoch_that_has_just_ended_is_counted_as_its_own() -> None:
    """Lightning begins to count anew when the next one begins."""
    counter = Counter()
    loader = make(counter)
    consume(loader, counter, 3)
    assert loader.position() == (1, 0)
    assert loader.passed(True) == (3, 3) and make(Counter()).passed(False) == (0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "g"}, r"data\.train: the checkpoint was made with other training data"),
        ({"size": 11}, r"data\.train: the checkpoint was made with 10 rows, these are 11"),
        ({"seed": 1}, "seed_everything: the checkpoint was made with seed 0, this run has 1"),
        ({"batch_size": 2}, r"this run has 2; --trainer\.accumulate_grad_batches 2 makes it 4"),
        (
            {"accumulate": 2},
            r"accumulate_grad_batches: .* 4 rows per .* this run has 8; --trainer.accumulate_grad_batches 1 makes it 4",
        ),
        ({"per_epoch": 2}, r"trainer\.limit_train_batches: .* 10 rows an epoch, this run has 8"),
    ],
)
def test_a_state_of_other_data_is_refused(change, message) -> None:
    state = make(Counter()).state_dict()
    with pytest.raises(InputError, match=f"{message}.*or start a new run without --ckpt_path"):
        make(Counter(), **change).load_state_dict(state)


def test_held_out_rows_keep_their_order() -> None:
    order = BatchOrder(size=5, batch_size=2, shuffle=False)
    rows = [TokenRow(prompt_ids=(1,), completions=((2,),), where="", prompt_text="") for _ in range(5)]
    loader = RowLoader(rows, order, lambda batch: [index for index, _ in batch])
    assert list(loader) == list(loader) == [[0, 1], [2, 3], [4]]
