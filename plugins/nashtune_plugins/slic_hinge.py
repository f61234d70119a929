"""SLiC-HF: Sequence Likelihood Calibration with Human Feedback, arXiv:2305.10425, in its reference-normalised form.

What is new in SLiC-HF: a hinge on the log-prob difference of ranked completions replaces reinforcement learning. The
form here is `hinge-norm` of Statistical Rejection Sampling Improves Preference Optimization, arXiv:2309.06657:
log-ratios against the reference take the place of log-probs, so the reference, and no separate SFT term, holds the
policy back.

Equation (arXiv:2309.06657, the hinge-norm loss), with h = log pi/pi_ref:

    loss = max(0, 1 - beta (h_w - h_l))

Conventions: log-probs are sums over completion tokens, EOS included; pi_ref carries no gradient. In SLiC's terms the
margin is delta = 1/beta and the loss is scaled by beta. beta comes from the KL controller.

Departures from SLiC-HF: no SFT regulariser (lambda = 0), and log-ratios in place of log-probs. At Delta = 1/beta
exactly the gradient is 0 (the subgradient that autograd takes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch.nn.functional import relu

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.


def slic_hinge_loss(delta_B: Tensor, beta: Tensor) -> Tensor:
    """Hinge on beta Delta with margin 1, one value per pair (B,); beta is a scalar or (B,)."""
    return relu(1.0 - beta.to(delta_B.dtype) * delta_B)  # hinge-norm, arXiv:2309.06657


class SLiCHingeLoss(Loss):
    """Hinge loss on the difference of log-ratios; it has no options of its own, the margin is 1/beta."""

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss and implicit rewards beta h of each pair (B,); `active` is the share of pairs inside the margin."""
        pairs = cast(PairBatch, batch)
        beta = cast("Tensor", step.beta)
        chosen_B, rejected_B = pairs.log_ratios()
        values_B = slic_hinge_loss(chosen_B - rejected_B, beta)
        return LossOutput(
            values=values_B,
            reward_chosen=(beta * chosen_B).detach(),
            reward_rejected=(beta * rejected_B).detach(),
            metrics={"active": (values_B > 0).to(values_B.dtype)},
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `slic_hinge`."""
    return [Component("loss", "slic_hinge", "nashtune_plugins.slic_hinge:SLiCHingeLoss")]
