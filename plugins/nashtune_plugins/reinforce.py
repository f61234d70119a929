"""REINFORCE against a reward, with a choice of baselines; REINFORCE++ without its ratio, arXiv:2501.03262.

What it is: the plain score-function gradient of the KL-regularised reward. One optimiser step is taken on the
completions of a round, so that no ratio to the policy that drew them is needed.

Equations, for token t of completion i:

    R_t = -beta k_t + [t last] score,        k_t = log pi_t - log ref_t                 (k1; k2, k3: options)
    G_i = sum_t R_t                          returns: completion
    G_t = sum_{s >= t} R_s                   returns: to_go
    A = G - baseline                         none, the batch's mean, the prompt's, or the mean of the prompt's others
    A <- (A - mean A) / sqrt(var A + 1e-8)   normalise: tokens, over all tokens of the round
    A <- A / (std A + 1e-8)                  normalise: completions, over the round's completions
    loss_i = -sum_t A_t log pi(y_t)

Conventions: sums over completion tokens, EOS included; the objective is the mean over completions; A carries no
gradient. With `returns: to_go` a baseline is that of the whole completion's return, which depends on no token.

REINFORCE++ is `returns: to_go, baseline: none, normalise: tokens`, and its baseline variant `baseline: group_mean,
normalise: completions`, with the KL penalty in the reward here. Departures: REINFORCE++ also clips PPO's ratio, which
at one optimiser step a round does nothing; it averages over tokens, and here completions are averaged. Its equations
follow a secondary source, the documentation of another implementation. In a prompt whose completions all have the same
return the group baselines give exactly 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import NonNegativeFloat

from nashtune.interfaces import Advantages, Loss, LossBatch, LossOutput, RolloutBatch, Step
from nashtune.plugins import Component, hookimpl
from nashtune.rl.estimators import kl_loss, per_completion, refuse_k1_in_loss
from nashtune.rl.gae import discounted_to_go
from nashtune.rl.groups import grouped
from nashtune.rl.rewards import compose, ended, refuse_two_rules, token_rewards
from nashtune.rl.whitening import EPSILON, whiten

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: S = completions (rollouts), M = tokens of all of them, one completion after another.

Baseline = Literal["none", "batch_mean", "group_mean", "leave_one_out"]


def baseline_of(total_S: Tensor, batch: RolloutBatch, baseline: Baseline) -> Tensor:
    """What a completion's return is compared with (S,).

    Args:
        total_S: Return of each whole completion.
        batch: Its groups, and the completions' weights in the batch's mean.
        baseline: Which.
    """
    if baseline == "none":
        return total_S.new_zeros(total_S.shape)
    if baseline == "batch_mean":
        if batch.weight is None:
            return total_S.mean().expand(total_S.shape)
        return ((total_S * batch.weight).sum() / batch.weight.sum()).expand(total_S.shape)
    groups = grouped(batch.group, f"reinforce (baseline: {baseline})", least=2)
    mean_S = groups.mean(total_S) if baseline == "group_mean" else groups.mean_of_others(total_S)
    return total_S.where(groups.equal(total_S)[groups.index], mean_S)


class REINFORCELoss(Loss):
    """Score-function gradient of the regularised reward.

    Args:
        baseline: `batch_mean`, over the round's completions (common practice); `group_mean`, over the prompt's
            (REINFORCE++'s variant); `leave_one_out`, over the prompt's others (the RLOO paper's loss); `none`.
        returns: What a token is credited with: the return of its whole `completion`, or that from it on, `to_go`
            (REINFORCE++).
        normalise: `tokens`: centred and divided by the standard deviation over the round's tokens (REINFORCE++).
            `completions`: divided by the sample's standard deviation over the round's completions (its baseline
            variant), with `returns: completion`. `none`.
        kl_in: Where the KL penalty is: in the `reward`, or in the `loss`.
        kl_estimator: `k1`, `k2` or `k3`. In the loss k1 would move nothing and is refused.
        no_eos_score: Score of a completion that reached the length limit, in place of the oracle's (ours: none).
        no_eos_penalty: What is taken off its score instead, >= 0 (ours: 0).
    """

    rows: ClassVar[RowKind] = "rollouts"
    beta_optional: ClassVar[bool] = True
    anchors: ClassVar[tuple[str, ...]] = ("ref",)

    def __init__(
        self,
        *,
        baseline: Literal["none", "batch_mean", "group_mean", "leave_one_out"] = "batch_mean",
        returns: Literal["completion", "to_go"] = "completion",
        normalise: Literal["none", "tokens", "completions"] = "none",
        kl_in: Literal["reward", "loss"] = "reward",
        kl_estimator: Literal["k1", "k2", "k3"] = "k1",
        no_eos_score: float | None = None,
        no_eos_penalty: NonNegativeFloat = 0.0,
    ) -> None:
        refuse_k1_in_loss(kl_in, kl_estimator)
        refuse_two_rules(no_eos_score, no_eos_penalty)
        if normalise == "completions" and returns == "to_go":
            raise ValueError(
                "normalise: completions needs one return per completion; use tokens, or returns: completion"
            )
        self.baseline: Baseline = baseline
        self.returns = returns
        self.normalise = normalise
        self.kl_in, self.kl_estimator = kl_in, kl_estimator
        self.no_eos_score = None if no_eos_score is None else float(no_eos_score)
        self.no_eos_penalty = float(no_eos_penalty)

    def judged(self, batch: RolloutBatch) -> Tensor:
        """Scores (S,), lower for completions that reached the length limit."""
        return ended(batch.score, batch.finished, self.no_eos_score, self.no_eos_penalty)

    def advantages(self, batch: RolloutBatch, step: Step) -> Advantages:
        """Coefficient of each token (M,), over all completions of a round.

        Metrics: `return`, each completion's score minus its penalties; with a group baseline `equal_groups`, the number
        of prompts whose completions all have the same score.
        """
        found = compose(
            batch,
            step.beta,
            kl_in=self.kl_in,
            estimator=self.kl_estimator,
        )
        total_S = found.total
        baseline_S = baseline_of(total_S, batch, self.baseline)
        if self.returns == "to_go":
            reward_M = token_rewards(found.score, found.penalty, batch.lengths)
            advantage_M = discounted_to_go(reward_M, batch.lengths, 1.0) - baseline_S[batch.sequence]
        else:
            advantage_S = total_S - baseline_S
            if self.normalise == "completions":
                advantage_S = advantage_S / (advantage_S.std() + EPSILON)
            advantage_M = advantage_S[batch.sequence]
        if self.normalise == "tokens":
            advantage_M = whiten(advantage_M, "population")
        metrics = {"return": found.total}
        if self.baseline in ("group_mean", "leave_one_out"):
            groups = grouped(batch.group, "reinforce", least=2)
            metrics["equal_groups"] = groups.equal(found.score).sum().to(found.score.dtype)
        return Advantages(advantage=advantage_M, metrics=metrics)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Surrogate of each completion (S,); only its gradient means something. The objective is their mean.

        It has no metrics: nothing is clipped and no ratio is taken. The entropy would need the logits of all tokens and
        is not measured.
        """
        rollouts = cast(RolloutBatch, batch)
        values_M = -cast("Tensor", rollouts.advantage) * rollouts.token_logp
        if self.kl_in == "loss" and step.beta is not None:
            values_M = values_M + kl_loss(rollouts, step.beta, self.kl_estimator)
        return LossOutput(values=per_completion(values_M, rollouts))


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `reinforce`."""
    return [Component("loss", "reinforce", "nashtune_plugins.reinforce:REINFORCELoss")]
