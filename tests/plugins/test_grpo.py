"""GRPO: published advantages, token losses and reductions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nashtune.evaluation.vectors import evaluate
from nashtune.rl.groups import grouped
from nashtune.spec.resolve import resolve
from nashtune_plugins.grpo import GRPOLoss, group_advantages
from rl_numbers import BASE, GROUPS

SAMPLE = [0.146367870092, -1.024575090647, -0.439103610277, 1.317310830832]
SAMPLE_2 = [-0.783308544846, -0.783308544846, 1.305514241410, 0.261102848282]
POPULATION = [0.169030850946, -1.183215956620, -0.507092552837, 1.521277658511]
POPULATION_2 = [-0.904534033733, -0.904534033733, 1.507556722889, 0.301511344578]
TOKENS = [-0.883929897737, -0.955738773611, -0.588981588640, -0.799806503279]
TOKENS_2 = [0.724063431150, 1.080093882784, 0.841210373822]
REDUCTIONS: dict[str, tuple[float, list[list[float]]]] = {
    "grpo": (
        0.037337519218,
        [
            [-0.111042946398, 0.001967346701, -0.076540945556, -0.099524187090],
            [0.121279406285, 0.179280034890, 0.140803896730],
        ],
    ),
    "dapo": (
        -0.083298439359,
        [
            [-0.126906224455, 0.002248396230, -0.087475366350, -0.113741928103],
            [0.103953776815, 0.153668601334, 0.120689054340],
        ],
    ),
    "dr_grpo": (
        -0.072886134439,
        [
            [-0.111042946398, 0.001967346701, -0.076540945556, -0.099524187090],
            [0.090959554713, 0.134460026167, 0.105602922547],
        ],
    ),
}


def test_published_advantages():
    scores = torch.tensor(GROUPS, dtype=torch.float64).flatten()
    groups = grouped(torch.tensor([0] * 4 + [1] * 4), "grpo", least=2)
    sample = group_advantages(scores, groups, correction=1, epsilon=1e-4)
    assert sample.tolist() == pytest.approx([*SAMPLE, *SAMPLE_2], abs=1e-12)
    population = group_advantages(scores, groups, correction=0, epsilon=0.0)
    assert population.tolist() == pytest.approx([*POPULATION, *POPULATION_2], abs=1e-12)


def run(reduction: str, **inputs: Any) -> dict[str, Any]:
    """Advantages 0.8 and -0.8."""
    loss = {"scale": "none", "reduction": reduction, **({"max_length": 4} if reduction == "dr_grpo" else {})}
    given = {**BASE, "score": [1.6, 0.0], "group": [5, 5], **inputs}
    case = {"params": {"loss": loss, "kl": {"name": "fixed", "beta": 0.04}}, "inputs": given}
    result = evaluate(resolve("grpo"), case)
    return {**result.further, **result.outputs}


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_published_reductions(reduction):
    objective, grad = REDUCTIONS[reduction]
    found = run(reduction)
    assert found["objective"] == pytest.approx(objective, abs=1e-12)
    assert found["grad_objective_policy"] == [pytest.approx(row, abs=1e-12) for row in grad]


def test_published_token_losses():
    """Without a division a value is the sum over its completion's tokens."""
    found = run("dapo")
    assert found["loss"] == pytest.approx([sum(TOKENS), sum(TOKENS_2)], abs=1e-11)
    alone = run("dapo", **{name: [[row[0]] for row in BASE[name]] for name in ("policy", "old", "ref")})
    assert alone["loss"] == pytest.approx([TOKENS[0], TOKENS_2[0]], abs=1e-12)


def test_in_one_length_all_means_agree():
    short = {name: [row[:3] for row in BASE[name]] for name in ("policy", "old", "ref")}
    found = {reduction: run(reduction, **short)["objective"] for reduction in REDUCTIONS}
    assert found["grpo"] == pytest.approx(found["dapo"], abs=1e-15)
    assert found["dr_grpo"] == pytest.approx(found["grpo"] * 3 / 4, abs=1e-15)


def test_scores_are_scaled_away_but_their_order_is_not():
    scores = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    groups = grouped(torch.zeros(3), "grpo", least=2)
    first, second = (group_advantages(s * scores, groups, correction=1, epsilon=0.0) for s in (1.0, 100.0))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-14)
    assert first[0] < first[1] < first[2]


@pytest.mark.parametrize("options", [{"reduction": "dr_grpo"}, {"max_length": 4}])
def test_max_length_belongs_to_dr_grpo(options):
    with pytest.raises(ValueError, match="set both, with max_length the sampler's max_new_tokens, or neither"):
        GRPOLoss(**options)
