from __future__ import annotations

import pytest
import torch

from nashtune.errors import InputError
from nashtune.models.member_order import check_passes, member_share
from nashtune.spec.model import HeadSpec

ROWS = torch.arange(400)


def test_over_two_passes_every_member_reads_every_row_exactly_once() -> None:
    for first in (0, 2, 8):
        early, late = (member_share(ROWS, 5, seed=3, epoch=first + i) for i in (0, 1))
        assert set(early.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(early + late, torch.full((400, 5), 2.0))  # twice the weight, once


def test_members_and_pairs_of_passes_have_orders_of_their_own() -> None:
    first, second = member_share(ROWS, 6, seed=3, epoch=0), member_share(ROWS, 6, seed=3, epoch=2)
    columns = [*first.T, *second.T, *member_share(ROWS, 6, seed=4, epoch=0).T]
    for i, one in enumerate(columns):
        assert 0.4 < float((one > 0).double().mean()) < 0.6
        for other in columns[:i]:  # independent halves agree on half of the rows: 0.5 +- 0.025
            assert 0.4 < float((one == other).double().mean()) < 0.6


def test_what_a_member_reads_depends_on_nothing_but_seed_row_pass_and_its_number() -> None:
    many = member_share(ROWS, 600, seed=7, epoch=1)
    assert torch.equal(member_share(ROWS, 1, seed=7, epoch=1), many[:, :1])
    shuffled = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(member_share(shuffled, 600, seed=7, epoch=1), many[shuffled])
    assert not torch.equal(many[:, 0], many[:, 512])


@pytest.mark.parametrize("epochs", [None, -1, 0, 1, 3])
def test_an_odd_number_of_epochs_is_refused(epochs: int | None) -> None:
    check_passes(HeadSpec(), {"max_epochs": epochs})
    with pytest.raises(InputError, match=r"trainer\.max_epochs: .*even number such as 2"):
        check_passes(HeadSpec(own_order=True), {"max_epochs": epochs})
    assert check_passes(HeadSpec(own_order=True), {"max_epochs": 4}) is None


@pytest.mark.parametrize(
    "cut",
    [
        {"limit_train_batches": 0.5},
        {"limit_train_batches": 1},
        {"overfit_batches": 1},
        {"overfit_batches": 0.5},
        {"max_time": "00:01:00:00"},
    ],
)
def test_epochs_that_are_not_whole_are_refused(cut: dict[str, object]) -> None:
    (name,) = cut
    assert check_passes(HeadSpec(), cut) is None
    with pytest.raises(InputError, match=rf"trainer\.{name}: .* these would not be whole; leave it out"):
        check_passes(HeadSpec(own_order=True), {"max_epochs": 2, **cut})


def test_a_step_limit_is_noted_and_what_shortens_nothing_is_not() -> None:
    head, whole = HeadSpec(own_order=True), {"limit_train_batches": 1.0, "overfit_batches": 0, "max_time": None}
    for steps in ({}, {"max_steps": -1}):
        assert check_passes(head, {"max_epochs": 2, **whole, **steps}) is None
    note = check_passes(head, {"max_epochs": 2, "max_steps": 5})
    assert note is not None and note.startswith("trainer.max_steps: 5 may end the run in the middle of two epochs")
