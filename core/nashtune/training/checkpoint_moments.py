"""Whether a checkpoint's weights, the optimiser's state and the learning-rate schedule belong together.

Torch gives the optimiser whatever is there: of a weight without a state, the moments begin at zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from nashtune.sharding.tensors import overlaps
from nashtune.training.checkpoint_parts import SECTION, is_count, is_number, shown

STATES = "states"
"""In the checkpoint's own section: how many weights each optimiser had a state of. One without a gradient has none."""
MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "rmsprop": ("square_avg",)}
"""Of an optimiser, what its state has of each number of a weight. That of bitsandbytes is the library's own."""


def moment_problems(content: Mapping[str, Any], *, tensors: bool) -> Iterator[str]:
    """What cannot be right; only the first one is sure to be said well.

    Args:
        content: A checkpoint that training is to go on with, with all of its parts.
        tensors: Whether weights and moments are in it; they are not where a folder of pieces was read without them.
    """
    own = content[SECTION]
    for name in ("optimizer_states", "lr_schedulers"):
        found = content[name]
        if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], Mapping):
            yield f"{name} is {shown(found)} and not a list of one mapping"
            return
    (state,), (schedule,) = content["optimizer_states"], content["lr_schedulers"]
    yield from _group_problems(state.get("param_groups"))
    yield from _schedule_problems(schedule)
    precision = own["config"]["policy"].get("precision")
    weights = content["state_dict"]
    if tensors:
        yield from weight_problems(weights, torch.float32 if precision == "fp32" else None)
    numbers = state["param_groups"][0]["params"]
    if tensors and len(numbers) != len(weights):
        yield f"optimizer_states is of {len(numbers)} weights, and state_dict has {len(weights)}"
    states = state.get("state")
    if not isinstance(states, Mapping) or not all(isinstance(one, Mapping) for one in states.values()):
        yield "optimizer_states.0.state is not one mapping for each weight"
        return
    if unknown := [number for number in states if not is_count(number) or number not in set(numbers)]:
        yield f"optimizer_states.0.state has {shown(unknown[0])}, which is none of its weights"
    if (kept := own.get(STATES, [len(states)])) != [len(states)]:
        yield f"optimizer_states.0 has the state of {len(states)} weights, and was saved with {shown(kept)}"
    optimizer = own["config"]["spec"].get("optimizer")
    moments = MOMENTS.get(str(optimizer.get("name"))) if isinstance(optimizer, Mapping) else None
    if moments is not None:
        likes = list(weights.values()) if tensors else []
        for number, one in states.items():
            where = f"optimizer_states.0.state.{number}"
            yield from _step_problems(one.get("step"), where)
            for name in moments if tensors else ():
                yield from _moment_problems(one.get(name), likes[numbers.index(number)], f"{where}.{name}")


def weight_problems(weights: Mapping[Any, Any], dtype: torch.dtype | None = None) -> Iterator[str]:
    """What cannot be right with weights alone.

    Args:
        weights: By name.
        dtype: That all of them have; None for any that can be trained.
    """
    for name, weight in weights.items():
        if not isinstance(name, str) or not isinstance(weight, Tensor):
            yield f"state_dict has {shown(name)}: {type(weight).__name__}, and not a name with its tensor"
        elif not weight.is_floating_point() or (dtype is not None and weight.dtype != dtype):
            yield f"{name} is {weight.dtype}, {f'and the run trains {dtype}' if dtype else 'which cannot be trained'}"
        elif overlaps(weight):
            yield f"{name} is {tuple(weight.shape)} numbers of which some share one place"


def _group_problems(groups: Any) -> Iterator[str]:
    where = "optimizer_states.0.param_groups"
    if not isinstance(groups, list) or len(groups) != 1 or not isinstance(groups[0], Mapping):
        yield f"{where} is {shown(groups)} and not a list of one mapping"
        return
    (group,) = groups
    numbers = group.get("params")
    if not isinstance(numbers, list) or not all(map(is_count, numbers)) or len(set(numbers)) != len(numbers):
        yield f"{where}.0.params is {shown(numbers)} and not the weights' numbers"
    for name in ("lr", "initial_lr", "weight_decay"):
        if not is_number(group.get(name)):
            yield f"{where}.0.{name} is {shown(group.get(name))} and no number"
    for name, value in group.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not all(part is None or isinstance(part, bool) or is_number(part) for part in parts):
            yield f"{where}.0.{name} is {shown(value)} and no setting of an optimiser"


def _schedule_problems(schedule: Mapping[str, Any]) -> Iterator[str]:
    for name in ("last_epoch", "_step_count"):
        if not is_count(schedule.get(name)):
            yield f"lr_schedulers.0.{name} is {shown(schedule.get(name))} and no count"
    for name in ("base_lrs", "_last_lr"):
        found = schedule.get(name)
        if not isinstance(found, list) or len(found) != 1 or not is_number(found[0]):
            yield f"lr_schedulers.0.{name} is {shown(found)} and not a list of one number"
    found = schedule.get("lr_lambdas")
    if not isinstance(found, list) or len(found) != 1 or found[0]:  # a bound method, which torch keeps nothing of
        yield f"lr_schedulers.0.lr_lambdas is {shown(found)}"
    for name in schedule:
        if not isinstance(name, str) or callable(getattr(LambdaLR, name, None)):  # torch would write over its method
            yield f"lr_schedulers.0 has {shown(name)}, which no schedule keeps"


def _step_problems(step: Any, where: str) -> Iterator[str]:
    number = step.numel() == 1 and not step.is_complex() if isinstance(step, Tensor) else is_number(step)
    if not number or not 0 <= float(step) < 2**63:
        yield f"{where}.step is {shown(step)} and no count"


def _moment_problems(moment: Any, weight: Tensor, where: str) -> Iterator[str]:
    if not isinstance(moment, Tensor):
        yield f"{where} is {shown(moment)} and no tensor"
    elif moment.shape != weight.shape:
        yield f"{where} is {tuple(moment.shape)}, and its weight is {tuple(weight.shape)}"
    elif moment.dtype not in (weight.dtype, torch.float32):
        yield f"{where} is {moment.dtype}, and its weight is {weight.dtype}"
    elif overlaps(moment):
        yield f"{where} is {tuple(moment.shape)} numbers of which some share one place"
