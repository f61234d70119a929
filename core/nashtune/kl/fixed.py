"""The KL controller that never moves: one β for the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nashtune.interfaces.batch import ExampleBatch, PairBatch
from nashtune.interfaces.kl import KLController
from nashtune.interfaces.scores import ScoreBatch

if TYPE_CHECKING:
    from jsonargparse.typing import PositiveFloat
    from torch import Tensor

    from nashtune.interfaces.batch import LossBatch


def scalar_beta(value: float, batch: LossBatch) -> Tensor:
    """β as a scalar on the batch's device, in the dtype of its log-probs, float32 at least."""
    import torch

    match batch:
        case PairBatch():
            logp = batch.policy_chosen
        case ExampleBatch():
            logp = batch.policy
        case ScoreBatch():
            logp = batch.scores
        case _:
            logp = batch.token_logp
    # A bf16 β would be off by up to 0.4 %: 0.1 becomes 0.1001.
    # Filled where it is needed: a tensor that is made on the host and copied would make the host wait.
    return torch.full((), value, dtype=torch.promote_types(logp.dtype, torch.float32), device=logp.device)


class FixedKL(KLController):
    """β is the same number at every step.

    Args:
        beta: Inverse temperature of the KL-regularised objective, > 0: it multiplies the log-ratio against the
            reference (DPO's paper: 0.1, and 0.5 for summarisation).
    """

    def __init__(self, *, beta: PositiveFloat) -> None:
        self.value = float(beta)

    def beta(self, batch: LossBatch) -> Tensor:
        """β as a scalar on the batch's device, in the dtype of its log-probs, float32 at least."""
        return scalar_beta(self.value, batch)
