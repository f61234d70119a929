"""Self-Play Preference Optimization for Language Model Alignment (SPPO), arXiv:2405.00675.

What is new: multiplicative weights in the game of general preferences, fitted by a regression on single completions:
winners are pushed up and losers down in absolute terms, where pairwise losses move only their difference.

Equations, with pi_t the policy that drew the completions, h = log pi/pi_t, and P^ the mean win rate of a completion
against the prompt's others, itself counted as one half:

    pi_{t+1} ~ pi_t exp(eta P(y > pi_t))
    loss = 1/2 [(h_w - eta (P^_w - 1/2))^2 + (h_l - eta (P^_l - 1/2))^2]       targets: win_rate
    loss = 1/2 [(h_w - eta (p - 1/2))^2 + (h_l + eta (p - 1/2))^2]             targets: single, p = P(y_w > y_l)
    loss = (h_w - eta/2)^2 + (h_l + eta/2)^2                                   targets: hard

The step's normaliser, log Z = log E exp(eta P), is replaced by eta/2 there (`log_partition: half`). `cancelled` takes
the difference of the two completions instead, in which it cancels, and whose minimiser is the step itself:

    loss = (h_w - h_l - eta (P^_w - P^_l))^2

Conventions: log-probs are sums over completion tokens, EOS included, not divided by length; pi_t carries no gradient;
one value per pair. eta is a step (larger moves further), 1/beta of the authors' code.

Departures: `win_rate` and `single` are the authors' code, factor 1/2 included; `hard` is TRL's `sppo_hard`, which has
no such factor. `cancelled` is ours. The code ranks by one score per completion, P(i > j) = sigma(s_i - s_j), while the
paper writes a preference; here the oracle decides, by scores or by comparisons.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import PositiveFloat

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

# Legend: B = pairs.


def sppo_loss(chosen_B: Tensor, rejected_B: Tensor, target_chosen_B: Tensor, target_rejected_B: Tensor) -> Tensor:
    """Half the squared distances of both log-ratios from their targets, all in nats; one value per pair (B,)."""
    return ((chosen_B - target_chosen_B) ** 2 + (rejected_B - target_rejected_B) ** 2) / 2.0


class SPPOLoss(Loss):
    """Squared loss on each completion's log-ratio against the last round's policy.

    Args:
        eta: Step of multiplicative weights, > 0; targets are eta times a win rate (paper: 1000).
        targets: `win_rate`, of each completion, or from the pair alone: `single`, P(y_w > y_l), or `hard`, its label.
        log_partition: `half` takes eta/2 for log Z (paper and code); `cancelled` fits differences, in which it cancels
            (with `targets: win_rate`).
    """

    anchors: ClassVar[tuple[str, ...]] = ("previous",)
    uses_beta: ClassVar[bool] = False
    uses_p_chosen: ClassVar[bool] = True
    uses_win_rates: ClassVar[bool] = True
    reward_unit = "nats / η"

    def __init__(
        self,
        *,
        eta: PositiveFloat,
        targets: Literal["win_rate", "single", "hard"] = "win_rate",
        log_partition: Literal["half", "cancelled"] = "half",
    ) -> None:
        if log_partition == "cancelled" and targets != "win_rate":
            raise ValueError(
                f"log_partition: cancelled takes targets: win_rate, found {targets}; from labels the same step is "
                "fitted by the loss inpo with tau 0 and 1/eta for eta"
            )
        self.eta = float(eta)
        self.targets = targets
        self.log_partition = log_partition

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each pair (B,).

        The implicit reward is the log-ratio to the last policy divided by the step eta: the win rate that the policy
        has been fitted to, minus one half (with `cancelled`: up to a constant of the prompt). Metrics, per pair:
        `log_ratio_margin` (h_w - h_l, in nats) and its `target`.
        """
        pairs = cast(PairBatch, batch)
        chosen_B, rejected_B = pairs.log_ratios("previous")
        target_w_B, target_l_B = self._targets(pairs)
        if self.log_partition == "cancelled":
            values_B = (chosen_B - rejected_B - (target_w_B - target_l_B)) ** 2
        else:
            values_B = sppo_loss(chosen_B, rejected_B, target_w_B, target_l_B)
            if self.targets == "hard":
                values_B = 2.0 * values_B  # TRL's form is the sum
        return LossOutput(
            values=values_B,
            reward_chosen=chosen_B.detach() / self.eta,
            reward_rejected=rejected_B.detach() / self.eta,
            metrics={"log_ratio_margin": (chosen_B - rejected_B).detach(), "target": target_w_B - target_l_B},
        )

    def _targets(self, pairs: PairBatch) -> tuple[Tensor, Tensor]:
        """Targets of h_w and h_l in nats, (B,) each, in the dtype of the log-probs."""
        like_B = pairs.policy_chosen.detach()
        if self.targets == "win_rate":
            won_B, lost_B = (
                cast("Tensor", rate_B).to(like_B.dtype) for rate_B in (pairs.win_rate_chosen, pairs.win_rate_rejected)
            )
            return self.eta * (won_B - 0.5), self.eta * (lost_B - 0.5)
        if self.targets == "single" and pairs.p_chosen is not None:
            target_B = self.eta * (pairs.p_chosen.to(like_B.dtype) - 0.5)
        else:
            target_B = like_B.new_full(like_B.shape, self.eta / 2.0)  # a certain label: p = 1
        return target_B, -target_B

    def gap_bound(self, rounds: int, divergence: float) -> tuple[str, float] | None:
        """4 sqrt(D/T) for the average policy, for the exact step (`cancelled`) with eta = sqrt(D/T) alone."""
        bound = math.sqrt(divergence / rounds)
        if self.log_partition != "cancelled" or not math.isclose(self.eta, bound, rel_tol=1e-6):
            return None
        return "4 √(D/T)", 4.0 * bound


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `sppo`."""
    return [Component("loss", "sppo", "nashtune_plugins.sppo:SPPOLoss")]
