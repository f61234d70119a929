"""The loader of a game, without a model: phases run between batches, and a state goes on exactly there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nashtune.errors import InputError
from nashtune.interfaces.schedule import Update
from nashtune.rounds.loader import GameLoader
from nashtune.rounds.order import WindowOrder
from nashtune.rounds.rows import RolloutRow
from nashtune.rounds.runner import Work


class Run:
    """Three updates with 5, 0 and 3 rows; counts what a trainer would count."""

    def __init__(self, batch_size: int = 2, accumulate: int = 2) -> None:
        self.processed = 0
        self.events: list[str] = []
        self.loader = GameLoader(
            self.works,
            lambda size: WindowOrder(size=size, batch_size=batch_size, accumulate=accumulate, epochs=1, seed=0),
            length=12,
            begin=self.begin,
            processed=lambda: self.processed,
            identity={"seed": 0, "fingerprint": "f"},
        )

    def works(self, done: int, step: int) -> Iterator[Work]:
        self.asked = (done, step)
        for number, size in enumerate((5, 0, 3)):
            self.events.append(f"phases before {number}")
            if number >= done:
                rows = [
                    RolloutRow(prompt_ids=(number,), token_ids=(i + 10,), score=0.5, where=f"u{number} r{i}")
                    for i in range(size)
                ]
                yield Work(number, 1, Update(), rows)
        self.events.append("phases after the last")

    def begin(self, work: Work, order: WindowOrder, *, fresh: bool, started: int | None) -> int:
        self.events.append(f"begin {work.number} {'fresh' if fresh else 'going on'}")
        return self.processed if started is None else started

    def train(self, steps: int | None = None) -> list[Any]:
        """What was trained on: the token ids and the weight of each micro-batch."""
        seen = []
        for batch in self.loader:
            self.events.append("batch")
            seen.append((batch.input_ids[:, 1].tolist(), self.loader.window_size()))
            self.processed += 1
            if len(seen) == steps:
                break
        return seen


def test_phases_run_only_when_the_batches_before_are_trained_on() -> None:
    run = Run()
    run.train()
    assert run.events == [
        *("phases before 0", "begin 0 fresh", *["batch"] * 4),
        *("phases before 1", "begin 1 fresh", "phases before 2", "begin 2 fresh", *["batch"] * 2),
        "phases after the last",
    ]


def test_an_empty_micro_batch_has_no_weight() -> None:
    seen = Run().train()
    assert [weight for _, weight in seen] == [4.0, 4.0, 1.0, float("inf"), 3.0, 3.0]


@pytest.mark.parametrize("at", [2, 4, 6])
def test_a_run_goes_on_where_its_state_says(at: int) -> None:
    whole, first, second = Run(), Run(), Run()
    expected = whole.train()
    seen = first.train(at)
    second.processed = first.processed
    second.loader.load_state_dict(first.loader.state_dict())
    assert seen + second.train() == expected
    assert second.loader.state_dict() == whole.loader.state_dict()


def test_a_run_goes_on_with_other_micro_batches_of_the_same_steps() -> None:
    """Of one step the checkpoint was made in the middle: its gradients are lost, so it is done from its beginning."""
    whole = Run(4, 1).train()
    for processed, step in ((2, 1), (3, 1), (4, 2)):
        first, second = Run(), Run(4, 1)
        first.train(processed)
        second.processed = step
        second.loader.load_state_dict(first.loader.state_dict())
        assert second.train() == whole[step:]


def test_a_state_of_other_prompts_is_refused() -> None:
    state = Run().loader.state_dict() | {"fingerprint": "another"}
    with pytest.raises(InputError, match=r"data\.train: other prompts"):
        Run().loader.load_state_dict(state)
