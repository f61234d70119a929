"""Nash Learning from Human Feedback: the mirror-descent step Nash-MD as a regression, arXiv:2312.00886.

What is new: each step of mirror descent is taken against, and centred on, a geometric mixture of the current policy and
the reference, so that the last policy converges without storing the earlier ones.

Equations (3) to (5), with mu the reference:

    pi_t^mu  ~ pi_t^{1 - eta tau} mu^{eta tau}
    pi_{t+1} ~ pi_t^mu exp(eta P(y > pi_t^mu))

The regression that has this step as its minimiser, for pairs whose completions are both drawn from pi_t^mu:

    h    = log pi(y_w)/pi(y_l) - eta tau log mu(y_w)/mu(y_l) - (1 - eta tau) log pi_t(y_w)/pi_t(y_l)
    loss = (h - eta/2)^2

Conventions: log-probs are sums over completion tokens, EOS included, not divided by length; mu and pi_t carry no
gradient; one value per pair. eta is a step (larger moves further) and eta tau, the weight of the reference, is at most
1; `reference_weight` gives it to the sampler.

`eta_rule: constant` keeps one eta; the policy then converges to a point that is off the regularised Nash policy by
O(eta^2). `last_iterate` is the theorem's step, eta_t = 2/(tau (t+2)) in round t = 1, 2, ...

Departures: the regression is ours; it has the paper's tabular step as its exact minimiser. The paper trains language
models by policy gradient instead (the loss `nash_pg`). The mixture of whole completions is intractable, so that the
sampler mixes next-token distributions, as the paper does there; the two mixtures differ. The text of the paper was not
available: the equations follow readings of it that agree with one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import NonNegativeFloat, PositiveFloat

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.


def nash_md_loss(h_B: Tensor, *, eta: float) -> Tensor:
    """Squared distance of h from its target eta/2, one value per pair (B,)."""
    return (h_B - eta / 2.0) ** 2


class NashMDLoss(Loss):
    """Squared loss on the log-ratio against the mixture that the pairs were drawn from.

    Args:
        tau: Weight of the KL divergence in the game, >= 0 (paper: 0.008 on summaries); eta tau is at most 1.
        eta: Step of mirror descent, > 0; the target is eta/2 nats. None under `eta_rule: last_iterate`.
        eta_rule: `constant`, or `last_iterate`: eta_t = 2/(tau (t+2)) in round t.
    """

    anchors: ClassVar[tuple[str, ...]] = ("ref", "previous")
    uses_beta: ClassVar[bool] = False
    mixes: ClassVar[bool] = True
    reward_unit = "nats / η"

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
                raise ValueError("eta_rule: last_iterate gives eta = 2/(tau (t+2)), which needs tau > 0")
        elif eta is None:
            raise ValueError("eta_rule: constant needs eta, the step, a number > 0")
        elif eta * tau > 1:
            raise ValueError(
                f"eta is {eta} and tau is {tau}; eta tau is the reference's weight in the mixture and must not exceed 1"
            )
        self.tau = float(tau)
        self.eta = None if eta is None else float(eta)

    def eta_of(self, round: int) -> float:
        """Step of a round, counted from 1."""
        return 2.0 / (self.tau * (round + 2)) if self.eta is None else self.eta

    def reference_weight(self, round: int) -> float:
        """Weight eta tau of the reference in the mixture that a round's pairs are drawn from."""
        return 2.0 / (round + 2) if self.eta is None else self.eta * self.tau

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each pair (B,).

        The implicit reward is the log-ratio to the mixture divided by the step eta: the win rate that the policy has
        been fitted to, up to a constant of the prompt. Its margin has the target 1/2. Metrics, per pair:
        `log_ratio_margin` (h, in nats) and its `target`.
        """
        eta, ref = self.eta_of(step.round), self.reference_weight(step.round)
        pairs = cast(PairBatch, batch)
        chosen_B, rejected_B = (
            ref * to_ref_B + (1.0 - ref) * to_previous_B
            for to_ref_B, to_previous_B in zip(pairs.log_ratios("ref"), pairs.log_ratios("previous"), strict=True)
        )
        h_B = chosen_B - rejected_B
        return LossOutput(
            values=nash_md_loss(h_B, eta=eta),
            reward_chosen=chosen_B.detach() / eta,
            reward_rejected=rejected_B.detach() / eta,
            metrics={"log_ratio_margin": h_B.detach(), "target": h_B.new_full(h_B.shape, eta / 2.0)},
        )

    def kl_bound(self, rounds: int) -> tuple[str, float] | None:
        """8/(tau^2 (T + 1)), the paper's theorem 1, for the decreasing step alone."""
        return None if self.eta is not None else ("8/(τ²(T + 1))", 8.0 / (self.tau**2 * (rounds + 1)))


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `nash_md`."""
    return [Component("loss", "nash_md", "nashtune_plugins.nash_md:NashMDLoss")]
