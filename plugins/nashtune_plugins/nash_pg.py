"""Nash Learning from Human Feedback: the policy gradients Nash-MD-PG and Nash-EMA-PG, arXiv:2312.00886.

What is new: the game of general preferences is learnt online, without outer rounds: each optimiser step is a REINFORCE
step against an opponent that lags behind, a geometric mixture of policy and reference (Nash-MD-PG) or a policy with
averaged weights (Nash-EMA-PG).

Equations, for y drawn from pi and y' from the opponent, and r_n = log pi(y_n)/mu(y_n) of token n:

    ghat = grad log pi(y) (P(y > y') - 1/2 - tau log pi(y)/mu(y))
    loss = - sum_n log pi(y_n) sg[P(y > y') - 1/2 - tau sum_{m >= n} r_m]          kl_grad: to_go
    opponent of Nash-MD-PG, token by token: softmax((1 - beta) logits of pi + beta logits of mu)

1/2 is P(y > y), a control variate. Tokens before n are not caused by token n and leave its sum: the gradient is as
unbiased as with all of them (`sequence`) and less noisy. `per_token` keeps r_n alone, as TRL does, and is not a
gradient of the KL divergence.

Conventions: sums over completion tokens, EOS included, never averaged; the bracket, mu and the opponent carry no
gradient; one value per completion of the policy. tau weighs the KL divergence in the game; beta, the schedule's
`mixture`, is tuned apart from it.

Departures: the text of the paper was not available; the equations follow readings of it that agree with one another.
For the averaged opponent they quote theta_bar_t = (1 - beta) theta_t + beta theta_0, which with the beta that was used
(0.999) would hold the opponent at its start and make the method the best response to mu, whose reported results are
nothing like it: the default is therefore the recursion theta_bar_{t+1} = beta theta_bar_t + (1 - beta) theta_{t+1};
`ema_of: start` is the formula as quoted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from nashtune.interfaces import Loss, LossBatch, LossOutput, RolloutBatch, Schedule, Step
from nashtune.interfaces.schedule import START, Collect, Judge, Pair, Phase, Round, Snapshot, Update
from nashtune.plugins import Component, hookimpl
from nashtune.schedules.online import snapshot_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: S = completions (rollouts), M = tokens of all of them, one completion after another.


def to_go(ratio_M: Tensor, lengths: Sequence[int]) -> Tensor:
    """For each token, the sum of the log-ratios of its completion from that token on (M,), without gradient."""
    sums_M = ratio_M.detach().clone()
    start = 0
    for length in lengths:  # one completion at a time, so that batch-mates add no rounding
        part = sums_M[start : start + length]
        part.copy_(part.flip(0).cumsum(0).flip(0))
        start += length
    return sums_M


class NashPGLoss(Loss):
    """REINFORCE surrogate with the preference over an opponent as reward and a KL penalty to the reference.

    Args:
        tau: Weight of the KL divergence in the game, >= 0 (paper: 0.008 on summaries).
        kl_grad: Log-ratios that a token's coefficient subtracts: `to_go`, from this token on (paper); `sequence`, the
            whole completion's; `per_token`, its own alone (TRL).
    """

    rows: ClassVar[RowKind] = "rollouts"
    anchors: ClassVar[tuple[str, ...]] = ("ref",)
    uses_beta: ClassVar[bool] = False
    detaches: ClassVar[bool] = True  # the coefficient of a token's log-prob
    reward_unit = "P(y > y')"

    def __init__(self, *, tau: NonNegativeFloat, kl_grad: Literal["to_go", "per_token", "sequence"] = "to_go") -> None:
        self.tau = float(tau)
        self.kl_grad = kl_grad

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Surrogate of each completion (S,); only its gradient means something.

        The rewards are P(y > y') and P(y' > y), so that accuracy is the share of completions that beat the opponent's.
        Metrics, per completion: `preference` P(y > y'), `log_ratio` log pi(y)/mu(y), whose mean estimates KL(pi || mu),
        and `regularised`, P - 1/2 - tau log_ratio.
        """
        rollouts = cast(RolloutBatch, batch)
        score_S = rollouts.score.to(rollouts.token_logp.dtype)
        ratio_M = (rollouts.token_logp - rollouts.anchors["ref"]).detach()
        log_ratio_S = score_S.new_zeros(score_S.shape).index_add(0, rollouts.sequence, ratio_M)
        penalty_M = self._penalty(ratio_M, log_ratio_S, rollouts)
        coefficient_M = (score_S - 0.5)[rollouts.sequence] - self.tau * penalty_M
        values_S = score_S.new_zeros(score_S.shape).index_add(
            0, rollouts.sequence, -rollouts.token_logp * coefficient_M
        )
        return LossOutput(
            values=values_S,
            reward_chosen=score_S,
            reward_rejected=1.0 - score_S,
            metrics={
                "preference": score_S,
                "log_ratio": log_ratio_S,
                "regularised": score_S - 0.5 - self.tau * log_ratio_S,
            },
        )

    def _penalty(self, ratio_M: Tensor, log_ratio_S: Tensor, rollouts: RolloutBatch) -> Tensor:
        if self.kl_grad == "to_go":
            return to_go(ratio_M, rollouts.lengths.tolist() if rollouts.counts is None else rollouts.counts)
        return ratio_M if self.kl_grad == "per_token" else log_ratio_S[rollouts.sequence]


class NashPGSchedule(Schedule):
    """One optimiser step a round, on completions drawn from the live policy and judged against an opponent's.

    Args:
        steps: Optimiser steps, > 0 (paper: 10000).
        opponent: `mixture` of policy and reference, token by token (Nash-MD-PG); `ema`, averaged weights (Nash-EMA-PG);
            `self`, the policy; `reference`, the policy before training (best response).
        mixture: Weight beta of the reference in `mixture`, in [0, 1] (paper: 0.125 to 0.375 did best).
        ema_decay: Weight of the old average in `ema`, in [0, 1] (paper: 0.999 and 0.9995).
        ema_of: What `ema_decay` weighs: the `previous` average, or the `start` (the formula as it is quoted).
    """

    reads: ClassVar[tuple[str, ...]] = ("oracle", "sampler")

    def __init__(
        self,
        *,
        steps: PositiveInt = 1000,
        opponent: Literal["mixture", "ema", "self", "reference"] = "mixture",
        mixture: ClosedUnitInterval = 0.125,
        ema_decay: ClosedUnitInterval = 0.999,
        ema_of: Literal["previous", "start"] = "previous",
    ) -> None:
        self.steps = int(steps)
        self.opponent = opponent
        self.mixture = float(mixture)
        self.ema_decay = float(ema_decay)
        self.ema_of = ema_of

    def rounds(self) -> tuple[Round, ...]:
        """Round t is optimiser step t; its result is the live policy."""
        return tuple(Round(phases=self._phases(t)) for t in range(1, self.steps + 1))

    def _phases(self, t: int) -> tuple[Phase, ...]:
        draw = (Collect(policy=None, reference_weight=0.0), self._opponent(t))
        step: tuple[Phase, ...] = (*draw, Judge(), Pair(), Update(reset=False))
        if self.opponent != "ema":
            return step
        old = START if self.ema_of == "start" else snapshot_name("ema", t - 1)
        average = {old: self.ema_decay, "live": 1.0 - self.ema_decay}
        return (*step, Snapshot(name=snapshot_name("ema", t), average=average))

    def _opponent(self, t: int) -> Collect:
        weights = {"ema": snapshot_name("ema", t - 1), "reference": START}
        mixture = self.mixture if self.opponent == "mixture" else 0.0
        return Collect(policy=weights.get(self.opponent), role="opponent", reference_weight=mixture)


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss and the schedule `nash_pg`."""
    return [
        Component("loss", "nash_pg", "nashtune_plugins.nash_pg:NashPGLoss"),
        Component("schedule", "nash_pg", "nashtune_plugins.nash_pg:NashPGSchedule"),
    ]
