from __future__ import annotations

import pytest
import torch

from nashtune.spec.model import OptimizerSpec
from nashtune.training.optimizer import LearningRate, configure, learning_rate_factor


def factors(total: int, warmup: float, decay: str) -> list[float]:
    steps = OptimizerSpec(warmup=warmup).warmup_steps(total)
    return [learning_rate_factor(s, total=total, warmup_steps=steps, decay=decay) for s in range(total)]


def test_warmup_as_a_share_and_as_steps_agree() -> None:
    assert factors(20, 0.1, "constant") == factors(20, 2, "constant")
    assert factors(20, 2, "constant")[:4] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])


def test_no_step_has_learning_rate_zero() -> None:
    for decay in ("constant", "linear", "cosine"):
        assert min(factors(10, 0.3, decay)) > 0


def test_decays_end_near_zero_and_fall() -> None:
    for decay in ("linear", "cosine"):
        values = factors(100, 0.1, decay)
        assert values[10:] == sorted(values[10:], reverse=True)
        assert values[-1] < 0.02
    assert learning_rate_factor(55, total=100, warmup_steps=10, decay="linear") == pytest.approx(0.5)
    assert learning_rate_factor(55, total=100, warmup_steps=10, decay="cosine") == pytest.approx(0.5)


def test_only_trained_parameters_enter_the_optimiser() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    for name in ("adamw", "rmsprop"):
        spec = OptimizerSpec(name=name, lr=1e-3)
        made = configure(spec, model.parameters(), LearningRate(spec, 10))["optimizer"]
        assert [p is model.weight for g in made.param_groups for p in g["params"]] == [True]


def test_a_warm_up_longer_than_the_run_is_said() -> None:
    assert "never reaches its peak" in str(OptimizerSpec(warmup=150).warmup_note(6))
    assert OptimizerSpec(warmup=150).warmup_note(151) is None
    assert OptimizerSpec(warmup=0).warmup_note(6) is None


def test_a_new_update_forgets_the_moments_and_warms_up_again() -> None:
    model = torch.nn.Linear(2, 2)
    spec = OptimizerSpec(lr=1.0, warmup=1, decay="linear")
    rate = LearningRate(spec, 3)
    made = configure(spec, model.parameters(), rate)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    seen = []
    for step in range(6):
        if step == 3:
            rate.start = 3
            rate.begin(optimizer)
            assert not optimizer.state
        seen.append(optimizer.param_groups[0]["lr"])
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()
    assert seen == [0.5, 1.0, 0.5] * 2
