from __future__ import annotations

import io
from importlib.util import find_spec

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from nashtune.spec.model import OptimizerSpec
from nashtune.training.optimizer import LearningRate, configure, learning_rate_factor, make_optimizer


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


def make(spec: OptimizerSpec, *parameters: torch.nn.Parameter) -> torch.optim.Optimizer:
    return make_optimizer(spec, list(parameters))


def test_only_trained_parameters_enter_the_optimiser() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    for name in ("adamw", "rmsprop"):
        spec = OptimizerSpec(name=name, lr=1e-3)
        made = configure(spec, model.parameters(), LearningRate(spec, 10))["optimizer"]
        assert [p is model.weight for g in made.param_groups for p in g["params"]] == [True]


def test_adamw_is_one_fused_kernel_with_the_result_of_adamw() -> None:
    weights = torch.randn(7, 5, dtype=torch.float64)
    fused, plain = torch.nn.Parameter(weights.clone()), torch.nn.Parameter(weights.clone())
    spec = OptimizerSpec(lr=0.01, weight_decay=0.1, betas=(0.8, 0.9))
    ours = make(spec, fused)
    theirs = torch.optim.AdamW([plain], lr=0.01, weight_decay=0.1, betas=(0.8, 0.9), foreach=False, fused=False)
    for _ in range(5):
        fused.grad = torch.randn(7, 5, dtype=torch.float64)
        plain.grad = fused.grad.clone()
        ours.step()
        theirs.step()
    assert ours.defaults["fused"] is True
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-14)


def test_gradients_are_clipped_in_mixed_precision() -> None:
    """Lightning refuses it for an optimiser that says it unscales gradients itself."""
    plugin = MixedPrecision("bf16-mixed", "cpu")
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = make(OptimizerSpec(), weight)
    weight.grad = torch.full((4,), 10.0)
    plugin.clip_gradients(optimizer, clip_val=1.0)
    assert float(weight.grad.norm()) == pytest.approx(1.0, rel=1e-5)


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


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_eight_bit_moments_follow_adamw_and_survive_a_checkpoint() -> None:
    torch.manual_seed(0)
    start = torch.randn(64, 128)
    eight, full = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    spec = OptimizerSpec(name="adamw_8bit", lr=1e-3)
    ours, theirs = make(spec, eight), make(OptimizerSpec(lr=1e-3), full)
    grads = [torch.randn(64, 128) for _ in range(8)]
    for i, grad in enumerate(grads):
        if i == 4:
            saved, file = eight.detach().clone(), io.BytesIO()
            torch.save(ours.state_dict(), file)
        eight.grad, full.grad = grad.clone(), grad.clone()
        ours.step()
        theirs.step()
    assert float((eight - full).detach().norm() / (full.detach() - start).norm()) < 0.05
    again = torch.nn.Parameter(saved)
    resumed = make(spec, again)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for grad in grads[4:]:
        again.grad = grad.clone()
        resumed.step()
    assert torch.equal(again, eight)
