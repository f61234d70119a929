"""ORPO: Monolithic Preference Optimization without Reference Model, arXiv:2403.07691.

What is new: supervised fine-tuning and preference learning in one loss on the base model, with neither a reference
nor an SFT stage: the chosen answer's negative log-likelihood plus a logistic penalty on the odds ratio of the two
answers.

Equations 6 and 7, with a = log pi(y|x)/n the average log-prob of a completion:

    log odds(y|x) = a - log(1 - e^a)
    loss          = -a_w - lam log sigma(log odds(y_w|x) - log odds(y_l|x))

Conventions: averages over completion tokens, EOS included; no reference and no KL controller; one value per pair.

Departures from the authors' code: their SFT term averages over all tokens of the micro-batch, and over the prompt's
unless told otherwise; here it is the average over each chosen completion, so that a value belongs to one pair
whatever its batch-mates are. log(1 - e^a) takes the branch that is accurate at each a (their log1p(-exp(a)) loses
digits near a = 0). lam is `alpha` in their code, `beta` in TRL.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from jsonargparse.typing import NonNegativeFloat
from torch.nn.functional import logsigmoid

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.


def log_odds(mean_B: Tensor) -> Tensor:
    """log(P/(1-P)) for P = exp(mean_B), mean_B <= 0 in nats per token (B,)."""
    # An average that rounds to 0 has infinite odds and a NaN gradient: keep it one rounding step below.
    mean_B = mean_B.clamp(max=-torch.finfo(mean_B.dtype).eps)
    near_zero_B = torch.log(-torch.expm1(mean_B))  # accurate above -log 2
    far_B = torch.log1p(-torch.exp(mean_B))  # accurate below
    return mean_B - torch.where(mean_B > -math.log(2.0), near_zero_B, far_B)  # eq. 4


def orpo_loss(mean_chosen_B: Tensor, mean_rejected_B: Tensor, *, lam: float) -> tuple[Tensor, Tensor]:
    """The loss and the log odds ratio, one value per pair (B,) each.

    Args:
        mean_chosen_B: log pi(y_w|x)/n_w, in nats per token (B,).
        mean_rejected_B: log pi(y_l|x)/n_l (B,).
        lam: Weight of the odds-ratio term, >= 0.
    """
    ratio_B = log_odds(mean_chosen_B) - log_odds(mean_rejected_B)
    return -mean_chosen_B - lam * logsigmoid(ratio_B), ratio_B  # eq. 6 and 7


class ORPOLoss(Loss):
    """Negative log-likelihood of the chosen answer plus the odds-ratio penalty.

    Args:
        lam: Weight of the odds-ratio term, >= 0 (authors' Mistral script: 0.1; grid of later papers: 0.1, 0.5, 1, 2).
    """

    anchors: ClassVar[tuple[str, ...]] = ()
    uses_beta: ClassVar[bool] = False
    reward_unit = "λ · nats per token"

    def __init__(self, *, lam: NonNegativeFloat) -> None:
        self.lam = float(lam)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss and rewards lam log pi/n of each pair (B,), with the two terms as metrics."""
        pairs = cast(PairBatch, batch)
        chosen_B = pairs.policy_chosen / pairs.len_chosen
        rejected_B = pairs.policy_rejected / pairs.len_rejected
        values_B, ratio_B = orpo_loss(chosen_B, rejected_B, lam=self.lam)
        return LossOutput(
            values=values_B,
            reward_chosen=(self.lam * chosen_B).detach(),
            reward_rejected=(self.lam * rejected_B).detach(),
            metrics={"nll_chosen": -chosen_B.detach(), "log_odds_ratio": ratio_B.detach()},
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `orpo`."""
    return [Component("loss", "orpo", "nashtune_plugins.orpo:ORPOLoss")]
