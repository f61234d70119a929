"""KTO: Model Alignment as Prospect Theoretic Optimization, arXiv:2402.01306.

What is new: completions need only a label, desirable or undesirable, no pairs; each is judged against a reference
point z0, the policy's KL divergence from the reference, through a value function that saturates for gains and for
losses.

Equation 8, with h = log pi/pi_ref:

    z0   = max(0, mean over the batch of log pi(y'|x)/pi_ref(y'|x)),   y' the completion of another example
    loss = lam_D (1 - sigma(beta (h - z0)))   desirable
    loss = lam_U (1 - sigma(beta (z0 - h)))   undesirable

Conventions: log-probs are sums over completion tokens, EOS included; z0 is one constant per micro-batch, averaged
over data-parallel ranks and detached; one value per example, the objective is the mean over all examples. beta comes
from the KL controller.

Departures: The mean behind z0 weighs every mismatched completion alike, also where ranks hold unequal numbers;
averaging the ranks' means, as is common, does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from jsonargparse.typing import NonNegativeFloat

from nashtune.errors import InputError
from nashtune.interfaces import ExampleBatch, Loss, LossBatch, LossOutput, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: E = examples.


def reference_point(log_ratio_E: Tensor, mean_over_ranks: Callable[[Tensor], Tensor]) -> Tensor:
    """z0 >= 0, a scalar without gradient, from the log-ratios of mismatched completions (E,) of every rank."""
    total = log_ratio_E.detach().sum()
    # filled where it is needed: a number from the host would be copied there, and the host would wait
    total, count = mean_over_ranks(torch.stack([total, torch.full_like(total, log_ratio_E.numel())])).unbind()
    return (total / count).clamp(min=0.0)  # after the mean over ranks: a mean of clamped means would be too large


def kto_loss(
    log_ratio_E: Tensor, desirable_E: Tensor, z0: Tensor, beta: Tensor, *, lam_desirable: float, lam_undesirable: float
) -> Tensor:
    """Prospect-theoretic loss, one value per example (E,), in [0, lam].

    Args:
        log_ratio_E: h = log pi/pi_ref, in nats (E,).
        desirable_E: True where the completion is desirable (E,).
        z0: Reference point, >= 0, a scalar.
        beta: Inverse temperature, > 0: a scalar or (E,).
        lam_desirable: Weight of desirable examples.
        lam_undesirable: Weight of undesirable examples.
    """
    gain_E = beta.to(log_ratio_E.dtype) * (log_ratio_E - z0)
    # 1 - sigma(x) written as sigma(-x): it keeps its digits where x is large
    desired_E = lam_desirable * torch.sigmoid(-gain_E)  # eq. 8, desirable
    undesired_E = lam_undesirable * torch.sigmoid(gain_E)  # eq. 8, undesirable
    return torch.where(desirable_E, desired_E, undesired_E)


class KTOLoss(Loss):
    """Unpaired loss on log-ratios against the batch's KL estimate.

    Args:
        lam_desirable: Weight of desirable examples, >= 0 (paper: 1; raise it when they are few).
        lam_undesirable: Weight of undesirable examples, >= 0 (paper: 1; n_D lam_D / (n_U lam_U) between 1 and 4/3).
    """

    rows: ClassVar[RowKind] = "examples"
    compares_rows: ClassVar[bool] = True  # z0 is estimated over a micro-batch
    vector_inputs: ClassVar[tuple[str, ...]] = ("z0",)

    def __init__(self, *, lam_desirable: NonNegativeFloat = 1.0, lam_undesirable: NonNegativeFloat = 1.0) -> None:
        self.lam_desirable = float(lam_desirable)
        self.lam_undesirable = float(lam_undesirable)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each example (E,); implicit rewards beta h, and which are those of desirable ones; `z0`."""
        examples = cast(ExampleBatch, batch)
        beta = cast("Tensor", step.beta)
        mismatched_E = examples.policy_mismatched
        if mismatched_E is None:
            raise InputError("kto: the batch has no mismatched completions; the reference point z0 needs them")
        z0 = reference_point(mismatched_E - examples.anchors_mismatched["ref"], step.mean_over_ranks)
        log_ratio_E = examples.policy - examples.anchors["ref"]
        values_E = kto_loss(
            log_ratio_E,
            examples.desirable,
            z0,
            beta,
            lam_desirable=self.lam_desirable,
            lam_undesirable=self.lam_undesirable,
        )
        reward_E = (beta * log_ratio_E).detach()
        return LossOutput(
            values=values_E,
            reward_chosen=reward_E,
            reward_rejected=reward_E,
            desirable=examples.desirable,
            metrics={"z0": z0},
        )

    def read_vector(self, batch: LossBatch, inputs: Mapping[str, Tensor]) -> LossBatch:
        """Take `z0` as given: one mismatched completion whose log-ratio it is."""
        z0 = inputs["z0"].reshape(1)
        zero = {"ref": torch.zeros_like(z0)}
        return replace(cast(ExampleBatch, batch), policy_mismatched=z0, anchors_mismatched=zero)


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `kto`."""
    return [Component("loss", "kto", "nashtune_plugins.kto:KTOLoss")]
