"""A General Theoretical Paradigm to Understand Learning from Human Preferences (IPO), arXiv:2310.12036.

What is new: preferences themselves are maximised (no Bradley-Terry link), so that the optimum stays finite when a
preference is certain: Delta* = (p - 1/2)/tau, at most 1/(2 tau), where DPO's margin grows without bound.

Equation 17, with h = log pi/pi_ref:

    loss = (h_w - h_l - 1/(2 tau))^2                      reduction: sum
    loss = (h_w/n_w - h_l/n_l - 1/(2 tau))^2              reduction: mean

Conventions: `sum` takes log-ratios of whole completions (the paper's notation and the code it is most often quoted
from); `mean` divides each log-ratio by its own number of completion tokens, EOS included, before the square. pi_ref
carries no gradient.

Departures: none in the formula. The choice of reduction has no default here, because systems that call their loss
"ipo" disagree (the same pair gives 1.0 under `sum` and 21.6225 under `mean`) and a silent default would hide which
one is trained. tau is called beta in most code; here it is `loss.tau`, and there is no KL controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import PositiveFloat

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.


def ipo_loss(delta_B: Tensor, *, tau: float) -> Tensor:
    """Squared distance of the log-ratio difference from its target 1/(2 tau), one value per pair (B,)."""
    return (delta_B - 1.0 / (2.0 * tau)) ** 2  # eq. 17


class IPOLoss(Loss):
    """Squared loss on the difference of log-ratios.

    Args:
        tau: Strength of the regularisation towards the reference, > 0 (common code: 0.1, the spec's value, unverified).
        reduction: `sum` for log-ratios of whole completions, `mean` for log-ratios per completion token.
    """

    uses_beta: ClassVar[bool] = False

    def __init__(self, *, tau: PositiveFloat, reduction: Literal["sum", "mean"]) -> None:
        self.tau = float(tau)
        self.reduction = reduction
        self.reward_unit = "τ · nats" if reduction == "sum" else "τ · nats per token"

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss and implicit rewards tau h of each pair (B,), h under the chosen reduction."""
        pairs = cast(PairBatch, batch)
        chosen_B, rejected_B = pairs.log_ratios()
        if self.reduction == "mean":
            chosen_B = chosen_B / pairs.len_chosen
            rejected_B = rejected_B / pairs.len_rejected
        return LossOutput(
            values=ipo_loss(chosen_B - rejected_B, tau=self.tau),
            reward_chosen=(self.tau * chosen_B).detach(),
            reward_rejected=(self.tau * rejected_B).detach(),
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `ipo`."""
    return [Component("loss", "ipo", "nashtune_plugins.ipo:IPOLoss")]
