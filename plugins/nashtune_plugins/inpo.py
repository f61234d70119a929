"""Iterative Nash Policy Optimization (INPO), arXiv:2407.00617.

What is new: self-play by online mirror descent in the game of general preferences with a KL penalty to the reference,
fitted from pairs with labels alone. Neither an estimate of each completion's win rate is needed (SPPO) nor a sampler
that mixes two models (Nash-MD).

Equations (5) and (8), with pi_t the policy that drew both completions and labels from the oracle:

    pi_{t+1} ~ exp(P(y > pi_t)/eta) pi_ref^{tau/eta} pi_t^{1 - tau/eta}
    h    = log pi(y_w)/pi(y_l) - (tau/eta) log pi_ref(y_w)/pi_ref(y_l) - (1 - tau/eta) log pi_t(y_w)/pi_t(y_l)
    loss = (h - 1/(2 eta))^2

Conventions: log-probs are sums over completion tokens, EOS included, not divided by length; pi_ref and pi_t carry no
gradient; one value per pair. eta is an INVERSE step (smaller moves further), 1/eta of ONPO; tau is the game's weight of
the KL divergence, at most eta.

`eta_rule: constant` keeps one eta. `last_iterate` is the paper's step for convergence of the last policy, eta_t =
tau (t+2)/2 in round t = 1, 2, ...: the reference's weight is 2/(t+2).

Departures: tau = eta is allowed; the loss is then IPO's with that tau. The weights in which a round starts are not in
the paper's algorithm; here, as in the workflow it builds upon, a round starts from pi_t with a fresh optimiser.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import NonNegativeFloat, PositiveFloat

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.


def inpo_loss(h_B: Tensor, *, eta: float) -> Tensor:
    """Squared distance of h from its target 1/(2 eta), one value per pair (B,)."""
    return (h_B - 1.0 / (2.0 * eta)) ** 2  # eq. 8


class INPOLoss(Loss):
    """Squared loss on the log-ratio against a mixture of reference and previous policy.

    Args:
        tau: Weight of the KL divergence in the game, >= 0, at most eta (paper: eta/3); 0 plays without it.
        eta: Inverse step of mirror descent, > 0; the target is 1/(2 eta) nats (paper: 0.005). None under
            `eta_rule: last_iterate`.
        eta_rule: `constant`, or `last_iterate`: eta_t = tau (t+2)/2 in round t.
    """

    anchors: ClassVar[tuple[str, ...]] = ("ref", "previous")
    uses_beta: ClassVar[bool] = False
    reward_unit = "η · nats"

    def __init__(
        self,
        *,
        tau: NonNegativeFloat,
        eta: PositiveFloat | None = None,
        eta_rule: Literal["constant", "last_iterate"] = "constant",
    ) -> None:
        if eta_rule == "last_iterate":
            if eta is not None:
                raise ValueError(f"eta is {eta}, but eta_rule: last_iterate computes it from tau; set eta to none")
            if tau == 0:
                raise ValueError("eta_rule: last_iterate gives eta = tau (t+2)/2, which needs tau > 0")
        elif eta is None:
            raise ValueError("eta_rule: constant needs eta, the inverse step, a number > 0")
        elif tau > eta:
            raise ValueError(
                f"tau is {tau} and eta is {eta}; tau/eta is the reference's share and must not exceed 1 (paper: 1/3)"
            )
        self.tau = float(tau)
        self.eta = None if eta is None else float(eta)

    def eta_of(self, round: int) -> float:
        """Inverse step of a round, counted from 1."""
        return self.tau * (round + 2) / 2.0 if self.eta is None else self.eta

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each pair (B,).

        The implicit reward is the log-ratio to the mixture, times eta: the win rate that the policy has been fitted to,
        up to a constant of the prompt. Its margin has the target 1/2. Metrics, per pair: `log_ratio_margin` (h, in
        nats) and its `target`.
        """
        eta = self.eta_of(step.round)
        pairs, ref = cast(PairBatch, batch), self.tau / eta
        chosen_B, rejected_B = (
            ref * to_ref_B + (1.0 - ref) * to_previous_B
            for to_ref_B, to_previous_B in zip(pairs.log_ratios("ref"), pairs.log_ratios("previous"), strict=True)
        )
        h_B = chosen_B - rejected_B
        return LossOutput(
            values=inpo_loss(h_B, eta=eta),
            reward_chosen=chosen_B.detach() * eta,
            reward_rejected=rejected_B.detach() * eta,
            metrics={"log_ratio_margin": h_B.detach(), "target": h_B.new_full(h_B.shape, 1.0 / (2.0 * eta))},
        )

    def gap_bound(self, rounds: int, divergence: float) -> tuple[str, float] | None:
        """4 sqrt(D/T) for the average policy, for mirror descent (tau = 0) with the step 1/eta = sqrt(D/T) alone."""
        step = math.sqrt(divergence / rounds)
        if self.tau or self.eta is None or not math.isclose(1.0, self.eta * step, rel_tol=1e-6):
            return None
        return "4 √(D/T)", 4.0 * step


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `inpo`."""
    return [Component("loss", "inpo", "nashtune_plugins.inpo:INPOLoss")]
