from __future__ import annotations

import pytest
import torch

from nashtune.errors import InputError
from nashtune.rl.groups import grouped

SCORE = torch.tensor([1.0, -1.0, 0.0, -1.0, 0.5, 3.0, 2.0, 1.0], dtype=torch.float64)
GROUP = torch.tensor([9, 4, 9, 4, 9, 4, 9, 4])  # two prompts, their completions interleaved


def test_statistics_do_not_ask_for_neighbours():
    groups = grouped(GROUP, "a loss", least=2)
    assert groups.mean(SCORE).tolist() == [0.875, 0.5] * 4
    assert groups.mean_of_others(SCORE).tolist() == pytest.approx(
        [2.5 / 3, 1.0, 3.5 / 3, 1.0, 1.0, -1.0 / 3, 0.5, 1.0 / 3], abs=1e-15
    )
    first, second = SCORE[GROUP == 9], SCORE[GROUP == 4]
    for correction in (0, 1):
        spread = groups.deviation(SCORE, correction)
        assert float(spread[0]) == pytest.approx(float(first.std(correction=correction)), abs=1e-15)
        assert float(spread[1]) == pytest.approx(float(second.std(correction=correction)), abs=1e-15)


def test_equality_is_exact():
    """0.1 three times has a standard deviation that is not 0 in floating point."""
    values = torch.tensor([0.1, 0.1, 0.1, 0.2, 0.2, 0.2 + 1e-15], dtype=torch.float64)
    groups = grouped(torch.tensor([0, 0, 0, 1, 1, 1]), "a loss", least=2)
    assert groups.equal(values).tolist() == [True, False]


def test_another_prompt_changes_nothing():
    alone = grouped(GROUP[GROUP == 9], "a loss", least=2)
    both = grouped(GROUP, "a loss", least=2)
    for name in ("mean", "mean_of_others"):
        assert torch.equal(getattr(alone, name)(SCORE[GROUP == 9]), getattr(both, name)(SCORE)[GROUP == 9])
    assert torch.equal(alone.deviation(SCORE[GROUP == 9], 1), both.deviation(SCORE, 1)[GROUP == 9])


def test_a_lonely_completion_is_refused():
    with pytest.raises(InputError, match=r"rloo compares .*a prompt has 1; set sampler\.completions to 2"):
        grouped(torch.tensor([0, 0, 1]), "rloo", least=2)
    with pytest.raises(InputError, match=r"grpo compares .*which prompt each one answers"):
        grouped(None, "grpo", least=2)
