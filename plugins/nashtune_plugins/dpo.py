"""Direct Preference Optimization: Your Language Model is Secretly a Reward Model, arXiv:2305.18290.

What is new: the KL-regularised reward maximiser is inverted, r = beta log(pi/pi_ref) + const(x), so that maximum
likelihood of Bradley-Terry preferences becomes a logistic loss on log-ratios; there is no reward model and no
sampling. With label smoothing it is cDPO (E. Mitchell, "A note on DPO with noisy preferences", 2023); soft labels
P(y_w > y_l) are the same formula.

Equations (arXiv:2305.18290, eq. 7; the cDPO note for eps), with h = log pi/pi_ref and Delta = h_w - h_l:

    p'   = p (1 - eps) + (1 - p) eps            p = 1 where labels are hard
    loss = -p' log sigma(beta Delta) - (1 - p') log sigma(-beta Delta)

Conventions: log-probs are sums over completion tokens, EOS included, not divided by length; pi_ref carries no
gradient; one value per pair. beta comes from the KL controller, as a scalar or as one value per pair.

Departures: the authors' code has hard labels only; soft labels are ours and agree with it at p = 1. Its
`reference_free` switch is left out: the reference-free methods have their own files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from jsonargparse.typing import restricted_number_type
from torch.nn.functional import logsigmoid

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.

LabelSmoothing = restricted_number_type("LabelSmoothing", float, [(">=", 0.0), ("<", 0.5)])


def dpo_loss(
    delta_B: Tensor, beta: Tensor, *, p_chosen_B: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy between the label and sigma(beta Delta), one value per pair (B,).

    Args:
        delta_B: h_w - h_l, in nats (B,).
        beta: Inverse temperature, > 0: a scalar or (B,).
        p_chosen_B: P(y_w > y_l), in [0, 1] (B,); None means 1.
        label_smoothing: Probability eps that a label is flipped, in [0, 0.5).
    """
    margin_B = beta.to(delta_B.dtype) * delta_B
    p_B = 1.0 if p_chosen_B is None else p_chosen_B.to(delta_B.dtype)
    smoothed_B = p_B * (1.0 - label_smoothing) + (1.0 - p_B) * label_smoothing  # p' of the cDPO note
    return -smoothed_B * logsigmoid(margin_B) - (1.0 - smoothed_B) * logsigmoid(-margin_B)  # eq. 7


class DPOLoss(Loss):
    """Logistic loss on the difference of log-ratios.

    Args:
        label_smoothing: Assumed probability that a label is flipped, in [0, 0.5); 0 is DPO, above it cDPO.
    """

    uses_p_chosen: ClassVar[bool] = True

    # mypy wants a class statement; jsonargparse and our static reader want this call
    def __init__(self, *, label_smoothing: LabelSmoothing = 0.0) -> None:  # type: ignore[valid-type]
        self.label_smoothing = float(LabelSmoothing(label_smoothing))  # at 0.5 labels would say nothing

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss and implicit rewards beta h of each pair (B,)."""
        pairs = cast(PairBatch, batch)
        beta = cast("Tensor", step.beta)
        chosen_B, rejected_B = pairs.log_ratios()
        values_B = dpo_loss(
            chosen_B - rejected_B, beta, p_chosen_B=pairs.p_chosen, label_smoothing=self.label_smoothing
        )
        return LossOutput(
            values=values_B,
            reward_chosen=(beta * chosen_B).detach(),
            reward_rejected=(beta * rejected_B).detach(),
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `dpo`."""
    return [Component("loss", "dpo", "nashtune_plugins.dpo:DPOLoss")]
