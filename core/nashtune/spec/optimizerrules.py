"""What must hold between a spec's optimiser and how a run keeps its weights. Without torch."""

from __future__ import annotations

from importlib.util import find_spec

from nashtune.spec.model import OptimizerSpec

EIGHT_BIT_LIBRARY = "bitsandbytes"
MOMENTS = {"adamw": 8, "adamw_8bit": 2, "rmsprop": 4}
"""Bytes that an optimiser keeps for each trained weight; those of adamw are in float32 where weights are in bf16."""


def optimizer_problem(optimizer: OptimizerSpec, *, precision: str, trains_weights: bool) -> str | None:
    """What is wrong with an optimiser in this run, with the option at fault; None where nothing is.

    Args:
        optimizer: The spec's.
        precision: `policy.precision`.
        trains_weights: Whether the policy's own weights are trained: not an adapter or a head alone, which are float32.
    """
    in_bf16 = precision == "bf16" and trains_weights
    if optimizer.name == "adamw_8bit" and find_spec(EIGHT_BIT_LIBRARY) is None:
        return (
            f"optimizer.name: adamw_8bit needs the library {EIGHT_BIT_LIBRARY}, which is not installed: "
            f"pip install {EIGHT_BIT_LIBRARY}; or use adamw"
        )
    if in_bf16 and optimizer.rounding != "stochastic":
        way = "" if optimizer.name == "adamw" else f", which goes with optimizer.name: adamw (found {optimizer.name})"
        return (
            "policy.precision: bf16 with all weights trained: at the learning rates of preference methods nearly every "
            "update is smaller than bf16 can hold and is lost; use policy.precision: fp32 with trainer.precision: "
            f"bf16-mixed, or policy.lora, or spec.optimizer.rounding: stochastic{way}"
        )
    if optimizer.rounding == "stochastic" and not in_bf16:
        kept = "an adapter or a head is kept in float32" if not trains_weights else f"policy.precision is {precision}"
        return (
            f"optimizer.rounding: stochastic rounds weights that are trained in bf16, and {kept}; leave it out, or set "
            "policy.precision: bf16 with all weights trained"
        )
    return None
