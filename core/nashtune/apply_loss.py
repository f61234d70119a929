"""A loss called as training and exact games call it: what it returns, and what it reads, is what the interface says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

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
        output = loss(_asked(batch), step)
    except _NotGiven as error:
        raise InputError(
            f"{who}: it reads '{error.args[0]}', and what it is given are the anchors "
            f"{', '.join(error.given) or 'none'}; name it in the class attribute `anchors`, and in the spec's "
            "references"
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


class _NotGiven(KeyError):
    """An anchor that is not there: no other KeyError of a loss says anything about anchors."""

    def __init__(self, name: object, given: tuple[str, ...]) -> None:
        super().__init__(name)
        self.given = given


class _Anchors(Mapping[str, Any]):
    """Anchors of a batch, with an error of their own for a name that is not among them."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def __getitem__(self, name: str) -> Any:
        try:
            return self._given[name]
        except KeyError as error:
            raise _NotGiven(name, tuple(self._given)) from error

    def __contains__(self, name: object) -> bool:
        return name in self._given

    def get(self, name: str, default: Any = None) -> Any:
        return self._given.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


def _asked(batch: LossBatch) -> LossBatch:
    """A copy of the batch with such anchors; not by `replace`, which reads each field of a batch that is watched."""
    found = copy(batch)
    for name in ("anchors", "anchors_mismatched"):
        if name in vars(batch):
            object.__setattr__(found, name, _Anchors(vars(batch)[name]))
    return found


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
