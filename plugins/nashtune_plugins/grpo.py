"""Group relative policy optimisation, arXiv:2402.03300; reductions of arXiv:2503.14476 and arXiv:2503.20783.

What is new: PPO's clipped ratio without a critic. The baseline is the mean score of a prompt's completions, the scale
their standard deviation, and the KL penalty is in the loss.

Equations, for the K completions of a prompt, token t of completion i of n_i tokens:

    A_i = (score_i - mean score) / (std score + 1e-4)                                   scale: group
    rho = exp(new - old),      k3 = exp(ref - new) - 1 - (ref - new)
    l_it = max(-A_i rho, -A_i clip(rho, 1 - eps, 1 + eps)) + beta k3
    objective = mean_i (1/n_i) sum_t l_it            reduction: grpo        (paper)
              = sum_it l_it / sum_i n_i              reduction: dapo        (DAPO; TRL's default)
              = mean_i (1/L) sum_t l_it              reduction: dr_grpo     (Dr. GRPO, with scale: none; L = max_length)

Conventions: completion tokens, EOS included; A carries no gradient. Under `dapo` the sum and the count are those of the
optimiser step, on all ranks, whatever its micro-batches: a mean within each micro-batch (TRL's `bnpo`) is another
objective and is not offered.

Departures: k3 in the loss has, token by token, the expected gradient of KL(ref || pi), not of KL(pi || ref): that is
the paper's method; `kl_estimator: k2` gives the other of each token, `kl_in: reward` with k1 that of the completions.
In a group whose rewards are all equal the advantages are exactly 0 and nothing is divided by 0. The text of the papers
was not available: equations and values follow TRL's code and secondary sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from nashtune.interfaces import Advantages, Loss, LossBatch, LossOutput, RolloutBatch, Step
from nashtune.plugins import Component, hookimpl
from nashtune.rl.estimators import kl_loss, per_completion, refuse_k1_in_loss
from nashtune.rl.groups import Groups, grouped
from nashtune.rl.rewards import compose, ended, refuse_two_rules
from nashtune.rl.surrogate import clipped_surrogate, largest

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: S = completions (rollouts), M = tokens of all of them, one completion after another.


def group_advantages(reward_S: Tensor, groups: Groups, *, correction: int | None, epsilon: float) -> Tensor:
    """Rewards centred, and scaled, within each group (S,); exactly 0 where all of a group are equal.

    Args:
        reward_S: Of each completion.
        groups: The prompts.
        correction: 0 for the population's standard deviation, 1 for the sample's, None for no scale.
        epsilon: Added to the standard deviation.
    """
    centred_S = reward_S - groups.mean(reward_S)
    if correction is not None:
        centred_S = centred_S / (groups.deviation(reward_S, correction) + epsilon)
    return centred_S.masked_fill(groups.equal(reward_S)[groups.index], 0.0)


class GRPOLoss(Loss):
    """Clipped ratio of each token, with group advantages and a KL penalty in the loss.

    Args:
        clip: Half-width eps of the ratio's interval, > 0 (TRL: 0.2).
        scale: What divides the centred rewards: the standard deviation of the `group` (paper), or `none` (Dr. GRPO).
        std: Standard deviation of the `sample`, K - 1 (TRL), or of the `population`, K.
        std_epsilon: Added to it, >= 0 (TRL: 1e-4).
        reduction: `grpo`: mean over completions of the mean over their tokens (paper). `dapo`: mean over all tokens of
            the optimiser step. `dr_grpo`: mean over completions of the sum over their tokens divided by `max_length`.
        max_length: Tokens that `dr_grpo` divides by, > 0: the sampler's limit.
        kl_in: Where the KL penalty is: in the `loss` (paper), or in the `reward`, as in PPO.
        kl_estimator: `k3` (paper), `k2`, or `k1`, which is refused in the loss, where it would move nothing.
        no_eos_score: Score of a completion that reached the length limit, in place of the oracle's (ours: none).
        no_eos_penalty: What is taken off its score instead, >= 0 (ours: 0).
    """

    rows: ClassVar[RowKind] = "rollouts"
    beta_optional: ClassVar[bool] = True
    anchors: ClassVar[tuple[str, ...]] = ("ref",)
    uses_old: ClassVar[bool] = True
    min_completions: ClassVar[int] = 2

    def __init__(
        self,
        *,
        clip: PositiveFloat = 0.2,
        scale: Literal["group", "none"] = "group",
        std: Literal["sample", "population"] = "sample",
        std_epsilon: NonNegativeFloat = 1e-4,
        reduction: Literal["grpo", "dapo", "dr_grpo"] = "grpo",
        max_length: PositiveInt | None = None,
        kl_in: Literal["reward", "loss"] = "loss",
        kl_estimator: Literal["k1", "k2", "k3"] = "k3",
        no_eos_score: float | None = None,
        no_eos_penalty: NonNegativeFloat = 0.0,
    ) -> None:
        refuse_k1_in_loss(kl_in, kl_estimator)
        refuse_two_rules(no_eos_score, no_eos_penalty)
        if (reduction == "dr_grpo") != (max_length is not None):
            raise ValueError(
                "reduction: dr_grpo divides by max_length, and no other reduction reads it; set both, with max_length "
                "the sampler's max_new_tokens, or neither"
            )
        self.clip = float(clip)
        self.correction = None if scale == "none" else int(std == "sample")
        self.std_epsilon = float(std_epsilon)
        self.reduction, self.max_length = reduction, max_length
        self.kl_in, self.kl_estimator = kl_in, kl_estimator
        self.no_eos_score = None if no_eos_score is None else float(no_eos_score)
        self.no_eos_penalty = float(no_eos_penalty)
        self.mean_over = "tokens" if reduction == "dapo" else "rows"

    def judged(self, batch: RolloutBatch) -> Tensor:
        """Scores (S,), lower for completions that reached the length limit."""
        return ended(batch.score, batch.finished, self.no_eos_score, self.no_eos_penalty)

    def advantages(self, batch: RolloutBatch, step: Step) -> Advantages:
        """The completion's advantage on each of its tokens (M,).

        Metrics: `return`, each completion's score minus its penalties; `equal_groups`, the number of prompts whose
        completions all have the same score.
        """
        groups = grouped(batch.group, "grpo", least=2)
        found = compose(
            batch,
            step.beta,
            kl_in=self.kl_in,
            estimator=self.kl_estimator,
        )
        advantage_S = group_advantages(found.total, groups, correction=self.correction, epsilon=self.std_epsilon)
        metrics = {"return": found.total, "equal_groups": groups.equal(found.score).sum().to(found.score.dtype)}
        return Advantages(advantage=advantage_S[batch.sequence], metrics=metrics)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each completion (S,), to be averaged over completions, or under `dapo` divided by all tokens.

        Metrics, per token: `policy_loss`, `ratio`, `clip_fraction`, `approx_kl`; per completion: `ratio_max`. The
        entropy would need the logits of all tokens and is not measured.
        """
        rollouts = cast(RolloutBatch, batch)
        old_M, advantage_M = cast("Tensor", rollouts.old), cast("Tensor", rollouts.advantage)
        policy_M, metrics = clipped_surrogate(rollouts.token_logp - old_M, advantage_M, self.clip)
        values_M = policy_M
        if self.kl_in == "loss" and step.beta is not None:
            values_M = values_M + kl_loss(rollouts, step.beta, self.kl_estimator)
        values_S = per_completion(values_M, rollouts)
        if self.reduction == "grpo":
            values_S = values_S / rollouts.lengths
        elif self.max_length is not None:
            values_S = values_S / self.max_length
        return LossOutput(
            values=values_S,
            metrics={
                "policy_loss": policy_M.detach(),
                **metrics,
                "ratio_max": largest(metrics["ratio"], rollouts.sequence, len(rollouts.lengths)),
            },
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `grpo`."""
    return [Component("loss", "grpo", "nashtune_plugins.grpo:GRPOLoss")]
