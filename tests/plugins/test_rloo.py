"""RLOO: published advantages, and the clipped ratio of whole completions."""

from __future__ import annotations

import pytest
import torch

from nashtune.errors import InputError
from nashtune.evaluation.vectors import evaluate
from nashtune.rl.groups import grouped
from nashtune.spec.resolve import resolve
from nashtune_plugins.rloo import RLOOLoss, leave_one_out
from rl_batches import prepared, random_rollouts
from rl_numbers import GROUPS, NEW, OLD

PUBLISHED = [0.166666666667, -1.166666666667, -0.5, 1.5, -2, -2, 3.333333333333, 0.666666666667]


def test_published_advantages():
    scores = torch.tensor(GROUPS, dtype=torch.float64).flatten()
    groups = grouped(torch.tensor([0] * 4 + [1] * 4), "rloo", least=2)
    found = leave_one_out(scores, groups)
    assert found.tolist() == pytest.approx(PUBLISHED, abs=1e-12)
    assert found.tolist() == pytest.approx((4 / 3 * (scores - groups.mean(scores))).tolist(), abs=1e-15)


def test_published_clipped_ratios():
    """Advantages 0.8 and -0.8. The second ratio is above 1.2, and with a negative advantage it is not clipped."""
    inputs = {"policy": NEW, "old": OLD, "ref": OLD, "score": [0.8, 0.0], "group": [0, 0]}
    result = evaluate(resolve("rloo"), {"inputs": inputs})
    found = {**result.further, **result.outputs}
    assert found["advantage"] == [[0.8] * 4, [-0.8] * 3]
    assert found["ratio"] == pytest.approx([1.105170918076, 1.284025416688], abs=1e-12)
    assert found["loss"] == pytest.approx([-0.884136734461, 1.027220333350], abs=1e-12)
    assert found["objective"] == pytest.approx(0.071541799445, abs=1e-12)
    assert found["grad_objective_policy"] == [
        pytest.approx([-0.442068367230] * 4, abs=1e-12),
        pytest.approx([0.513610166675] * 3, abs=1e-12),
    ]
    assert found["mean_clip_fraction"] == 0.0
    assert {"ratio", "clip_fraction", "approx_kl"} <= set(result.further)


def test_a_ratio_above_the_interval_stops_a_positive_advantage():
    inputs = {"policy": [[-0.5], [-1.0]], "old": [[-1.0], [-1.0]], "ref": [[-1.0], [-1.0]], "score": [1.0, 0.0]}
    result = evaluate(resolve("rloo"), {"inputs": {**inputs, "group": [0, 0]}})
    assert result.outputs["loss"] == pytest.approx([-1.2, 1.0])
    assert result.outputs["grad_policy"] == [[0.0], [1.0]] and result.further["clip_fraction"] == [1.0, 0.0]


def test_the_kl_penalty_of_a_completion_is_in_its_return_and_in_its_others_baseline():
    batch = random_rollouts(0, [3, 2, 4, 1], [0, 0, 1, 1])
    assert batch.old is not None
    log_ratio = torch.zeros(4, dtype=torch.float64).index_add(0, batch.sequence, batch.old - batch.anchors["ref"])
    total = batch.score - 0.1 * log_ratio
    found = prepared(RLOOLoss(), batch)[0].advantage
    wanted = torch.stack([total[0] - total[1], total[1] - total[0], total[2] - total[3], total[3] - total[2]])
    torch.testing.assert_close(found, wanted[batch.sequence], rtol=0, atol=1e-14)


def test_one_completion_a_prompt_is_refused():
    batch = random_rollouts(0, [3, 2], [0, 1])
    with pytest.raises(InputError, match=r"rloo compares .*sampler\.completions to 2"):
        prepared(RLOOLoss(), batch)
    assert RLOOLoss.min_completions == 2
