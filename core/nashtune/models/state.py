"""Whether the weights of a checkpoint are those of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nashtune.errors import InputError, nearest
from nashtune.sharding.tensors import local, overlaps

ALTERED = "it was altered: restore it from a copy"


def check_state(own: Mapping[str, Tensor], state: Mapping[Any, Any]) -> None:
    """Refuse weights that would not become the policy's as they were saved.

    Args:
        own: What is trained, by name.
        state: What was saved. Of another floating dtype it may be: an evaluation may choose its own.

    Raises:
        InputError: names or shapes differ: the checkpoint is of another model or of other LoRA settings, or it was
            altered.
    """
    if odd := [name for name, one in state.items() if not isinstance(name, str) or not isinstance(one, Tensor)]:
        raise InputError(f"checkpoint: {odd[0]!r} in its state_dict is no weight's name with a tensor; {ALTERED}")
    where = "checkpoint: it does not belong to this policy (another model or other policy.lora settings): "
    if missing := sorted(own.keys() - state.keys()):
        raise InputError(f"{where}{len(missing)} weights are missing, such as {missing[0]}")
    if unknown := sorted(state.keys() - own.keys()):
        guess = nearest(unknown[0], own) if len(own) <= 20 else ""
        raise InputError(f"{where}{len(unknown)} weights are not in the policy, such as {unknown[0]}{guess}")
    for name, weight in own.items():
        saved = state[name]
        if not saved.is_floating_point() or overlaps(saved):
            raise InputError(
                f"checkpoint: {name} is {saved.dtype} of shape {tuple(saved.shape)} and strides "
                f"{local(saved).stride()}, and no weight is saved like that; {ALTERED}"
            )
        if weight.shape != saved.shape:
            raise InputError(f"{where}{name} is {tuple(saved.shape)}, the policy's is {tuple(weight.shape)}")
