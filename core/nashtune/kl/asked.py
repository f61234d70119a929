"""Asks a KL controller and looks at the form of what comes back: anybody's class may be behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from nashtune.errors import InputError
from nashtune.interfaces import ExampleBatch, PairBatch, ScoreBatch

if TYPE_CHECKING:
    from nashtune.interfaces import KLController, LossBatch


def asked_beta(kl: KLController, batch: LossBatch) -> Tensor:
    """β of a batch. Its form alone is looked at: for its numbers the device would have to be waited for.

    Raises:
        InputError: it is no tensor, or neither a scalar nor one number for each row.
    """
    found, rows = kl.beta(batch), _rows(batch)
    shapes = [(), (rows,)]
    if kl.beta_per_side and isinstance(batch, PairBatch):
        shapes.append((rows, 2))
    if isinstance(found, Tensor) and tuple(found.shape) in shapes:
        return found
    gave = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise InputError(
        f"kl {type(kl).__name__}: beta() returns a tensor, a scalar or one number for each of {rows} rows, and gave "
        f"{gave}; of one number nashtune.kl.fixed.scalar_beta(value, batch) makes it"
    )


def asked_report(kl: KLController, batch: LossBatch, beta: Tensor) -> dict[str, Tensor]:
    """What the controller reports of a batch.

    Raises:
        InputError: it is no mapping of tensors.
    """
    found = kl.report(batch, beta)
    what = f"kl {type(kl).__name__}: report() returns a dict of tensors, a scalar or one number per row each, and gave"
    if not isinstance(found, Mapping):
        raise InputError(f"{what} {type(found).__name__}")
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{what} {type(value).__name__} for '{name}'")
    return dict(found)


def _rows(batch: LossBatch) -> int:
    match batch:
        case PairBatch():
            return len(batch.policy_chosen)
        case ExampleBatch():
            return len(batch.policy)
        case ScoreBatch():
            return len(batch.scores)
        case _:
            return len(batch.lengths)
