from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nashtune.evaluation.reliability import BINS, expected_calibration_error, reliability
from nashtune.evaluation.reliability_plot import draw_reliability
from nashtune.evaluation.reward_report import calibration

GAPS = torch.tensor([1.5, -0.1, 0.0, 2.5], dtype=torch.float64)
CERTAIN = torch.ones(4, dtype=torch.float64)


def test_the_error_of_four_pairs_by_hand() -> None:
    # claimed 0.8176 and right; 0.5250 and wrong, in one bin with a tie at 0.5, right by half; 0.9241 and right
    p = GAPS.sigmoid()
    bins = reliability(p, CERTAIN)
    assert [one["pairs"] for one in bins] == [2, 1, 1]
    assert bins[0]["right"] == 0.25 and bins[0]["claimed"] == pytest.approx((0.5 + 0.52497918747894) / 2)
    expected = (2 * (bins[0]["claimed"] - 0.25) + (1 - 0.8175744761936437) + (1 - 0.9241418199787566)) / 4
    assert expected_calibration_error(p, CERTAIN) == pytest.approx(expected, abs=1e-12)


def test_a_label_that_is_always_first_does_not_look_like_doubt() -> None:
    """All labels are 1 where the better answer comes first: taken alone they call any doubt a mistake."""
    draw = torch.Generator().manual_seed(0)
    gap = 1.5 * torch.randn(20000, generator=draw, dtype=torch.float64)
    first_wins = torch.rand(20000, generator=draw, dtype=torch.float64) < gap.sigmoid()
    signed = torch.where(first_wins, gap, -gap)  # better minus worse, of scores that are right about their chances
    ones = torch.ones_like(gap)
    assert expected_calibration_error(signed.sigmoid(), ones) < 0.015
    assert expected_calibration_error((3 * signed).sigmoid(), ones) > 0.1


def test_one_rank_reports_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("the other ranks have nothing to say here, and this one would wait for them")

    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)
    monkeypatch.setattr("torchmetrics.metric.gather_all_tensors", asked)
    assert expected_calibration_error(GAPS.sigmoid(), CERTAIN) > 0


def test_soft_labels_are_what_is_so() -> None:
    p = torch.tensor([0.7, 0.7, 0.2], dtype=torch.float64)
    assert expected_calibration_error(p, p) == pytest.approx(0.0, abs=1e-12)
    found = calibration(p.logit(), p)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    assert found["log_loss"] == pytest.approx(float(entropy), abs=1e-12)


def test_the_bins_give_the_error_and_end_at_one_half_and_one() -> None:
    p = torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    label = (torch.rand(500, generator=torch.Generator().manual_seed(2)) < 0.7).double()
    p[0], p[1] = 0.0, 1.0
    bins = reliability(p, label)
    assert len(bins) == BINS and bins[0]["from"] == 0.5 and bins[-1]["to"] == 1.0
    assert sum(one["pairs"] for one in bins) == 500
    total = sum(one["pairs"] * abs(one["claimed"] - one["right"]) for one in bins) / 500
    # a certain one stands in a bin of its own there
    assert expected_calibration_error(p, label) == pytest.approx(total, abs=0.005)


def test_the_picture_is_drawn_also_of_a_single_bin(tmp_path: Path) -> None:
    for gaps in (GAPS, GAPS[2:3]):
        draw_reliability(calibration(gaps, torch.ones_like(gaps)), tmp_path / "reliability.png", title="x")
        assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["reliability.png"]
