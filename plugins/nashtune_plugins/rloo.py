"""REINFORCE leave-one-out, arXiv:2402.14740: several completions of a prompt are each other's baseline.

What is new: for language models a whole completion is one action; the mean reward of a prompt's other completions is an
unbiased baseline, so that neither a critic nor GAE is needed.

Equations, for the K completions y_1 ... y_K of a prompt:

    R_i = score_i - beta sum_t k_t,          k_t = old_t - ref_t                      (k1; options: k2, k3, in the loss)
    A_i = R_i - mean_{j != i} R_j = K/(K-1) (R_i - mean R)
    rho_i = exp(sum_t (new_t - old_t))
    loss_i = max(-A_i rho_i, -A_i clip(rho_i, 1 - eps, 1 + eps))

Conventions: sums over completion tokens, EOS included; the objective is the mean over completions; A carries no
gradient.

Departures: the paper's loss is -A_i sum_t log pi(y_t), without a ratio. At the first optimiser step of an update both
have the same gradient; the clipped ratio of the whole completion, TRL's form, allows more than one. The paper's own
form is the loss `reinforce` with `baseline: leave_one_out`. In a group whose rewards are all equal the advantages are
exactly 0. The text of the paper was not available: the equations follow TRL's code and secondary sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import NonNegativeFloat, PositiveFloat

from nashtune.interfaces import Advantages, Loss, LossBatch, LossOutput, RolloutBatch, Step
from nashtune.plugins import Component, hookimpl
from nashtune.rl.estimators import kl_loss, per_completion, refuse_k1_in_loss
from nashtune.rl.groups import Groups, grouped
from nashtune.rl.rewards import compose, ended, last_tokens, refuse_two_rules
from nashtune.rl.surrogate import clipped_surrogate

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: S = completions (rollouts), M = tokens of all of them, one completion after another.


def leave_one_out(reward_S: Tensor, groups: Groups) -> Tensor:
    """R_i minus the mean of the others of its group (S,); exactly 0 where all of a group are equal."""
    advantage_S = reward_S - groups.mean_of_others(reward_S)
    return advantage_S.masked_fill(groups.equal(reward_S)[groups.index], 0.0)


class RLOOLoss(Loss):
    """Clipped ratio of each whole completion, with the leave-one-out baseline.

    Args:
        clip: Half-width eps of the ratio's interval, > 0 (TRL: 0.2; the paper has no ratio).
        kl_in: Where the KL penalty is: in the `reward` (paper), or in the `loss`.
        kl_estimator: `k1` (paper, in the reward), `k2` or `k3`. In the loss k1 would move nothing and is refused.
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
        kl_in: Literal["reward", "loss"] = "reward",
        kl_estimator: Literal["k1", "k2", "k3"] = "k1",
        no_eos_score: float | None = None,
        no_eos_penalty: NonNegativeFloat = 0.0,
    ) -> None:
        refuse_k1_in_loss(kl_in, kl_estimator)
        refuse_two_rules(no_eos_score, no_eos_penalty)
        self.clip = float(clip)
        self.kl_in, self.kl_estimator = kl_in, kl_estimator
        self.no_eos_score = None if no_eos_score is None else float(no_eos_score)
        self.no_eos_penalty = float(no_eos_penalty)

    def judged(self, batch: RolloutBatch) -> Tensor:
        """Scores (S,), lower for completions that reached the length limit."""
        return ended(batch.score, batch.finished, self.no_eos_score, self.no_eos_penalty)

    def advantages(self, batch: RolloutBatch, step: Step) -> Advantages:
        """The completion's advantage on each of its tokens (M,).

        Metrics: `return`, each completion's score minus its penalties; `equal_groups`, the number of prompts whose
        completions all have the same score.
        """
        groups = grouped(batch.group, "rloo", least=2)
        found = compose(
            batch,
            step.beta,
            kl_in=self.kl_in,
            estimator=self.kl_estimator,
        )
        advantage_S = leave_one_out(found.total, groups)
        metrics = {"return": found.total, "equal_groups": groups.equal(found.score).sum().to(found.score.dtype)}
        return Advantages(advantage=advantage_S[batch.sequence], metrics=metrics)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each completion (S,); the objective is their mean.

        Metrics, per completion: `ratio`, `clip_fraction`, `approx_kl` (of the whole completion). The entropy would need
        the logits of all tokens and is not measured.
        """
        rollouts = cast(RolloutBatch, batch)
        old_M, advantage_M = cast("Tensor", rollouts.old), cast("Tensor", rollouts.advantage)
        log_ratio_S = per_completion(rollouts.token_logp - old_M, rollouts)
        values_S, metrics = clipped_surrogate(log_ratio_S, advantage_M[last_tokens(rollouts.lengths)], self.clip)
        if self.kl_in == "loss" and step.beta is not None:
            penalty_M = kl_loss(rollouts, step.beta, self.kl_estimator)
            values_S = values_S + per_completion(penalty_M, rollouts)
        return LossOutput(values=values_S, metrics=metrics)


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `rloo`."""
    return [Component("loss", "rloo", "nashtune_plugins.rloo:RLOOLoss")]
