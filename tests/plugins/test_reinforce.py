"""REINFORCE: the batch-mean baseline, REINFORCE++'s returns and both of its normalisations, and leave-one-out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nashtune.errors import InputError
from nashtune.evaluation.vectors import evaluate
from nashtune.spec.resolve import resolve
from nashtune_plugins.reinforce import REINFORCELoss
from rl_batches import prepared, random_rollouts
from rl_numbers import ARMS, BASE, GROUPED, NEW, OLD

PLUS_BASELINE = [0.091070515216, -0.637493606512, -0.273211545648, 0.819634636944]
PLUS_BASELINE_2 = [-1.092846182592, -1.092846182592, 1.821410304320, 0.364282060864]
TO_GO = [[1.5, 1.48, 1.5, 1.49], [-0.485, -0.465, -0.505]]
NORMALISED = [
    [0.873619297471, 0.853183758349, 0.873619297471, 0.863401527910],
    [-1.154607960401, -1.134172421279, -1.175043499523],
]


def run(loss: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    case = {"params": {"loss": loss, "kl": {"name": "fixed", "beta": 0.1}}, "inputs": inputs}
    result = evaluate(resolve("reinforce"), case)
    return {**result.further, **result.outputs}


def near(value: list[list[float]]) -> Any:
    return [pytest.approx(row, abs=1e-12) for row in value]


def test_published_returns_of_completions():
    found = run({}, ARMS)
    assert found["return"] == pytest.approx([0.84, -0.02, 0.99], abs=1e-14)
    centred = [0.84 - 1.81 / 3, -0.02 - 1.81 / 3, 0.99 - 1.81 / 3]
    assert [row[0] for row in found["advantage"]] == pytest.approx(centred, abs=1e-14)
    assert found["loss"] == pytest.approx([2.0 * centred[0], 1.3 * centred[1], 2.1 * centred[2]], abs=1e-14)
    assert found["grad_policy"][0] == pytest.approx([-centred[0]] * 3, abs=1e-14)


def test_published_returns_to_go():
    plus = {"returns": "to_go", "baseline": "none"}
    assert run(plus, BASE)["advantage"] == near(TO_GO)
    assert run({**plus, "normalise": "tokens"}, BASE)["advantage"] == near(NORMALISED)


def test_published_group_centred_variant():
    found = run({"baseline": "group_mean", "normalise": "completions"}, GROUPED)
    assert found["advantage"] == near([[x] for x in (*PLUS_BASELINE, *PLUS_BASELINE_2)])


def test_published_loss_of_leave_one_out_without_a_ratio():
    inputs = {"policy": NEW, "old": OLD, "ref": OLD, "score": [0.8, 0.0], "group": [0, 0]}
    found = run({"baseline": "leave_one_out"}, inputs)
    assert found["objective"] == pytest.approx(0.7, abs=1e-14)
    assert found["grad_objective_policy"] == near([[-0.4] * 4, [0.4] * 3])


def test_a_round_is_one_step_and_no_ratio_is_taken():
    loss = REINFORCELoss()
    assert not loss.uses_old and not loss.uses_values and loss.min_completions == 1
    batch, step = prepared(loss, random_rollouts(0, [3, 2]))
    assert loss(batch, step).metrics == {}


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
def test_group_baselines_need_a_group(baseline):
    batch = random_rollouts(0, [3, 2], [0, 1])
    with pytest.raises(InputError, match=rf"reinforce \(baseline: {baseline}\) compares .*a prompt has 1"):
        prepared(REINFORCELoss(baseline=baseline), batch)
    assert prepared(REINFORCELoss(), batch)[0].advantage is not None


def test_a_return_to_go_leaves_out_what_was_before():
    """The penalties of earlier tokens are not a token's doing."""
    batch = random_rollouts(1, [4, 3])
    whole = prepared(REINFORCELoss(baseline="none"), batch)[0].advantage
    to_go = prepared(REINFORCELoss(baseline="none", returns="to_go"), batch)[0].advantage
    torch.testing.assert_close(to_go[[0, 4]], whole[[0, 4]], rtol=0, atol=1e-14)
    assert bool((to_go[1:4] != whole[1:4]).all())


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="needs one return per completion"):
        REINFORCELoss(returns="to_go", normalise="completions")
