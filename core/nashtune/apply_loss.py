"""A loss called as training and exact games call it: what it returns, and what it reads, is what the interface says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import ExampleBatch, LossOutput, PairBatch, RolloutBatch

if TYPE_CHECKING:
    from nashtune.interfaces import Loss, LossBatch, Step


def apply_loss(loss: Loss, batch: LossBatch, step: Step) -> LossOutput:
    """The values and metrics of a batch.

    Raises:
        InputError: the loss reads an anchor that it does not declare, or returns something else than one value a row.
    """
    who = f"loss {type(loss).__name__}"
    try:
        output = loss(batch, step)
    except KeyError as error:
        name, anchors = next(iter(error.args), None), getattr(batch, "anchors", {})
        if not isinstance(name, str) or name in anchors:
            raise
        raise InputError(
            f"{who}: it reads '{name}', and what it is given are the anchors "
            f"{', '.join(anchors) or 'none'}; name it in the class attribute `anchors`, and in the spec's references"
        ) from error
    if not isinstance(output, LossOutput):
        raise InputError(f"{who}: it returns LossOutput(values=one value a row), and gave {type(output).__name__}")
    for name, value in {"values": output.values, **output.metrics}.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{who}: '{name}' of its LossOutput is a tensor, and it gave {type(value).__name__}")
    if output.values.ndim != 1:
        raise InputError(
            f"{who}: its values have the shape {tuple(output.values.shape)}; return one value a "
            "row and no mean, which is taken over all rows of the optimiser step"
        )
    if torch.is_grad_enabled() and _policy(batch).requires_grad and not output.values.requires_grad:
        raise InputError(
            f"{who}: its values have no gradient, so nothing would be learned; make them from the batch's "
            "policy log-probs (or scores) without detach() or item()"
        )
    return output


def _policy(batch: LossBatch) -> Tensor:
    """What the policy says of the rows: with gradient, where there is one."""
    match batch:
        case PairBatch():
            return batch.policy_chosen
        case ExampleBatch():
            return batch.policy
        case RolloutBatch():
            return batch.token_logp
    return batch.scores
