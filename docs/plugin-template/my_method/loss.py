"""my-method: a squared hinge on DPO's margin.

Title, authors and number of the paper stand here; this example has none.

Equation, with h = log pi/pi_ref:

    loss = max(0, margin - beta (h_w - h_l))^2

Conventions: log-probs are sums over completion tokens, EOS included; pi_ref carries no gradient; one value per pair.

Departures: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from jsonargparse.typing import PositiveFloat
from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.


def my_method_loss(z_B: Tensor, *, margin: float) -> Tensor:
    """Squared hinge on z = beta (h_w - h_l), one value per pair (B,)."""
    return (margin - z_B).relu() ** 2


class MyMethodLoss(Loss):
    """Squared distance of the scaled difference of log-ratios from a margin, where it is below.

    Args:
        margin: Where the pull on a pair ends, in units of beta times nats, > 0 (ours).
    """

    def __init__(self, *, margin: PositiveFloat = 1.0) -> None:
        self.margin = float(margin)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss and implicit rewards beta h of each pair (B,)."""
        beta = cast("Tensor", step.beta)
        chosen_B, rejected_B = (beta * h_B for h_B in cast(PairBatch, batch).log_ratios())
        values_B = my_method_loss(chosen_B - rejected_B, margin=self.margin)
        return LossOutput(values=values_B, reward_chosen=chosen_B.detach(), reward_rejected=rejected_B.detach())
