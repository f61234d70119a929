"""SimPO: Simple Preference Optimization with a Reference-Free Reward, arXiv:2405.14734.

What is new: the reward is the average log-prob per token, the quantity that ranks completions at decoding time, so no
reference model is needed; a target margin gamma separates the two completions.

Equation 6, in the authors' code's parametrisation (gamma_beta_ratio = gamma/beta):

    loss = -log sigma(beta (log pi(y_w|x)/n_w - log pi(y_l|x)/n_l - gamma_beta_ratio))

Conventions: log-probs are averages over completion tokens, EOS included; no reference, hence no KL controller: beta
is the loss's own `loss.beta` (2 to 10, not DPO's 0.1).

Departures: the authors' optional SFT term (`sft_weight`, 0 in all released configurations) and label smoothing are
left out. Neither option has a default: peers ship beta 0.1 with gamma 0.5, beta 2 with gamma 1, or beta 0.1 with
gamma/beta 0.3 under the same name, and none of these is a setting that the paper reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from jsonargparse.typing import NonNegativeFloat, PositiveFloat
from torch.nn.functional import logsigmoid

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.


def simpo_loss(mean_chosen_B: Tensor, mean_rejected_B: Tensor, *, beta: float, gamma_beta_ratio: float) -> Tensor:
    """Logistic loss on the difference of average log-probs minus the margin, one value per pair (B,).

    Args:
        mean_chosen_B: log pi(y_w|x)/n_w, in nats per token (B,).
        mean_rejected_B: log pi(y_l|x)/n_l (B,).
        beta: Scale of the reward, > 0.
        gamma_beta_ratio: Target margin gamma divided by beta, >= 0, in nats per token.
    """
    return -logsigmoid(beta * (mean_chosen_B - mean_rejected_B - gamma_beta_ratio))  # eq. 6


class SimPOLoss(Loss):
    """Reference-free logistic loss on average log-probs with a target margin.

    Args:
        beta: Scale of the reward, > 0 (paper's grid: 2 to 10; Llama-3-8B-Instruct: 2.5).
        gamma_beta_ratio: The paper's gamma divided by beta, >= 0, in nats per token (Llama-3-8B-Instruct: 0.55).
    """

    anchors: ClassVar[tuple[str, ...]] = ()
    uses_beta: ClassVar[bool] = False
    reward_unit = "β · nats per token"

    def __init__(self, *, beta: PositiveFloat, gamma_beta_ratio: NonNegativeFloat) -> None:
        self.beta = float(beta)
        self.gamma_beta_ratio = float(gamma_beta_ratio)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss and rewards beta log pi/n of each pair (B,)."""
        pairs = cast(PairBatch, batch)
        chosen_B = pairs.policy_chosen / pairs.len_chosen
        rejected_B = pairs.policy_rejected / pairs.len_rejected
        return LossOutput(
            values=simpo_loss(chosen_B, rejected_B, beta=self.beta, gamma_beta_ratio=self.gamma_beta_ratio),
            reward_chosen=(self.beta * chosen_B).detach(),
            reward_rejected=(self.beta * rejected_B).detach(),
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `simpo`."""
    return [Component("loss", "simpo", "nashtune_plugins.simpo:SimPOLoss")]
