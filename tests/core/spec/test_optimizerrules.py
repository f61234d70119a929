from __future__ import annotations

import pytest

from nashtune.spec import optimizerrules
from nashtune.spec.model import OptimizerSpec
from nashtune.spec.optimizerrules import optimizer_problem

STOCHASTIC = OptimizerSpec(rounding="stochastic")


@pytest.mark.parametrize(
    ("optimizer", "precision", "trains_weights", "found"),
    [
        (OptimizerSpec(), "fp32", True, None),
        (OptimizerSpec(), "bf16", False, None),
        (STOCHASTIC, "bf16", True, None),
        (OptimizerSpec(), "bf16", True, "or spec.optimizer.rounding: stochastic"),
        (OptimizerSpec(name="rmsprop"), "bf16", True, "goes with optimizer.name: adamw (found rmsprop)"),
        (STOCHASTIC, "fp32", True, "policy.precision is fp32"),
        (STOCHASTIC, "bf16", False, "an adapter or a head is kept in float32"),
    ],
)
def test_bf16_weights_need_stochastic_rounding(optimizer, precision, trains_weights, found) -> None:
    problem = optimizer_problem(optimizer, precision=precision, trains_weights=trains_weights)
    assert problem is None if found is None else found in str(problem)


def test_eight_bits_need_their_library(monkeypatch) -> None:
    eight = OptimizerSpec(name="adamw_8bit")
    monkeypatch.setattr(optimizerrules, "find_spec", lambda name: None)
    assert "pip install bitsandbytes" in str(optimizer_problem(eight, precision="fp32", trains_weights=True))
    monkeypatch.setattr(optimizerrules, "find_spec", lambda name: object())
    assert optimizer_problem(eight, precision="fp32", trains_weights=True) is None


def test_an_optimiser_shows_what_it_reads() -> None:
    read = {name: OptimizerSpec(name=name).to_dict().keys() for name in ("adamw", "adamw_8bit", "rmsprop")}
    assert read["adamw"] - read["adamw_8bit"] == {"rounding"}
    assert read["adamw_8bit"] - read["rmsprop"] == {"betas"}
