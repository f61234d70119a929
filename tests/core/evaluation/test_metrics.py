from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nashtune.evaluation.metrics import Means, accuracy
from nashtune.interfaces import LossOutput


def output(values: list[float], chosen: list[float], rejected: list[float], **metrics: float) -> LossOutput:
    return LossOutput(
        values=torch.tensor(values, requires_grad=True),
        reward_chosen=torch.tensor(chosen),
        reward_rejected=torch.tensor(rejected),
        metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )


def test_a_tie_is_half_right() -> None:
    assert accuracy(torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.0, 0.0, 0.0])).tolist() == [1.0, 0.5, 0.0]


def test_means_do_not_depend_on_the_split_into_micro_batches() -> None:
    whole, split = Means(), Means()
    whole.update(output([1.0, 2.0, 6.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0], beta=0.1), 3)
    split.update(output([1.0], [1.0], [0.0], beta=0.1), 1)
    split.update(output([2.0, 6.0], [0.0, 2.0], [1.0, 2.0], beta=0.1), 2)
    first, second = whole.compute_and_reset(), split.compute_and_reset()
    assert first == pytest.approx(second)
    assert first["loss"] == pytest.approx(3.0) and first["accuracy"] == pytest.approx(0.5)
    assert first["margin"] == pytest.approx(0.0)


def test_scalar_metrics_are_weighted_by_pairs() -> None:
    means = Means()
    means.update(output([0.0], [0.0], [0.0], beta=1.0), 1)
    means.update(output([0.0] * 3, [0.0] * 3, [0.0] * 3, beta=5.0), 3)
    assert means.compute_and_reset()["beta"] == pytest.approx(4.0)


def test_unpaired_examples_have_a_margin_but_no_accuracy() -> None:
    means = Means()
    means.update(output([0.0, 0.0, 0.0], [3.0], [1.0, 2.0]), 3, kind="examples")
    found = means.compute_and_reset()
    assert "accuracy" not in found and found["margin"] == pytest.approx(1.5)


def test_a_step_without_a_kind_of_example_has_no_mean_of_it() -> None:
    """NaN would stay in a running mean for ever."""
    means, rewards = Means(), torch.tensor([1.0, 2.0])
    only = LossOutput(
        values=rewards, reward_chosen=rewards, reward_rejected=rewards, desirable=torch.zeros(2, dtype=torch.bool)
    )
    means.update(only, 2, kind="examples")
    assert {name: float(value) for name, value in means.tensors().items()} == {"loss": 1.5, "reward_rejected": 1.5}
    means.update(replace(only, desirable=torch.tensor([True, False])), 2, kind="examples")
    found = {name: float(value) for name, value in means.tensors().items()}
    assert found == {"loss": 1.5, "reward_chosen": 1.0, "reward_rejected": pytest.approx(5 / 3)}
    borrowed = Means()  # the other ranks of this step have no desirable example either, and leave it out
    borrowed.update(only, 2, kind="examples", counts=False)
    assert borrowed.tensors().keys() == {"loss"}
    picked = Means()
    picked.update(output([0.0, 0.0], [], [1.0, 2.0]), 2, kind="examples")
    assert picked.tensors().keys() == {"loss", "reward_rejected"}


def test_a_soft_label_counts_by_its_probability() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0, 2.0, 0.0]), torch.zeros(4)
    p = torch.tensor([0.2, 0.2, 0.9, 0.5], dtype=torch.float64)
    assert accuracy(chosen, rejected, p).tolist() == pytest.approx([0.2, 0.5, 0.9, 0.5])
    assert accuracy(rejected, chosen, p).tolist() == pytest.approx([0.8, 0.5, 0.1, 0.5])
    assert torch.equal(accuracy(chosen, rejected, torch.ones(4)), accuracy(chosen, rejected))
    means = Means()
    means.update(output([0.0] * 4, chosen.tolist(), rejected.tolist()), 4, p_chosen=p)
    assert means.compute_and_reset()["accuracy"] == pytest.approx((0.2 + 0.5 + 0.9 + 0.5) / 4)


def test_lists_have_a_name_of_their_own() -> None:
    means = Means()
    means.update(output([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]), 2, kind="ranked")
    found = means.compute_and_reset()
    assert found["best_over_worst"] == 0.5 and "accuracy" not in found


def test_reset_starts_again() -> None:
    means = Means()
    means.update(output([1.0], [0.0], [0.0]), 1)
    means.compute_and_reset()
    assert means.compute_and_reset() == {}


def test_unpaired_examples_under_a_mask_are_those_of_their_side() -> None:
    """The same means without picking rewards out, whose number only the device would know."""
    reward, desirable = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([True, False, False])
    means = Means()
    means.update(
        LossOutput(values=torch.zeros(3), reward_chosen=reward, reward_rejected=reward, desirable=desirable),
        3,
        kind="examples",
    )
    means.update(
        LossOutput(
            values=torch.zeros(1), reward_chosen=reward[:1], reward_rejected=reward[:1], desirable=~desirable[:1]
        ),
        1,
        kind="examples",
    )
    found = means.compute_and_reset()
    assert (found["reward_chosen"], found["reward_rejected"]) == (3.0, 2.0) and found["margin"] == 1.0


def test_borrowed_rows_add_their_names_and_no_value() -> None:
    """A rank that has nothing of its own still takes part in the reduction."""
    means, other = Means(), Means()
    means.update(output([1.0], [1.0], [0.0], beta=0.1), 1)
    means.update(output([9.0], [0.0], [1.0], beta=9.0), 1, counts=False)
    assert means.compute_and_reset() == pytest.approx(
        {"loss": 1.0, "beta": 0.1, "accuracy": 1.0, "reward_chosen": 1.0, "reward_rejected": 0.0, "margin": 1.0}
    )
    other.update(output([9.0], [0.0], [1.0], beta=9.0), 1, counts=False)
    assert other.state_dict()["names"] and other.compute_and_reset() == {}


def test_an_interval_is_the_mean_over_its_pairs_and_not_over_its_steps() -> None:
    step, interval = Means(), Means()
    for values in ([1.0], [2.0, 6.0], [3.0]):
        step.update(output(values, [0.0] * len(values), [0.0] * len(values)), len(values))
        interval.absorb(step)
        assert step.compute_and_reset() == {}
    assert interval.compute_and_reset()["loss"] == pytest.approx(12.0 / 4)


def test_a_flag_is_read_along(monkeypatch: pytest.MonkeyPatch) -> None:
    means = Means()
    means.update(output([1.0], [0.0], [0.0]), 1)
    found, raised = means.read(torch.tensor(0.0))
    assert found["loss"] == 1.0 and not raised
    assert means.read(torch.tensor(1.0)) == ({}, True)


def test_saved_sums_go_on_to_the_last_bit() -> None:
    whole, before, after = Means(), Means(), Means()
    numbers = [[0.1, 0.2], [0.3], [0.7, 0.123456789]]
    for values in numbers[:2]:
        for means in (whole, before):
            means.update(output(values, values, [0.0] * len(values), beta=0.1), len(values))
    after.load_state_dict(before.state_dict())
    for means in (whole, after):
        means.update(output(numbers[2], numbers[2], [0.0] * 2, beta=0.1), 2)
    assert whole.compute_and_reset() == after.compute_and_reset()
    after.load_state_dict({})
    assert after.compute_and_reset() == {}


def test_another_number_of_ranks_goes_on_with_all_that_was_added() -> None:
    means = Means()
    means.load_state_dict({"names": ["loss"], "ranks": [[[3.0, 2.0]], [[5.0, 2.0]]]})
    assert means.compute_and_reset() == {"loss": 2.0}
