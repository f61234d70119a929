from __future__ import annotations

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
