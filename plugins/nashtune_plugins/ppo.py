"""Proximal policy optimisation of a language model against a reward, arXiv:1909.08593, arXiv:2203.02155.

What it is: the policy draws completions, an oracle scores each one, a penalty for leaving the reference is taken off
every token, a critic says what was to be expected, and the advantages weigh a clipped ratio for several passes.

Equations, for token t of a completion, log-probs before the update `old` and now `new`:

    R_t  = -beta k_t + [t last] score,       k_t = old_t - ref_t                      (k1; options: k2, k3, in the loss)
    delta_t = R_t + gamma V_{t+1} - V_t,     A_t = delta_t + gamma lam A_{t+1},     target_t = A_t + V_t
    A <- (A - mean A) / sqrt(var A + 1e-8)   over all tokens of the update
    rho_t = exp(new_t - old_t)
    loss_t = max(-A_t rho_t, -A_t clip(rho_t, 1 - eps, 1 + eps))
           + vf_coef max((V_t - target_t)^2, (clip(V_t, V_old_t +- eps_v) - target_t)^2) / 2

The objective is the mean over all completion tokens of an optimiser step, EOS included: sums and counts, whatever the
micro-batches. Advantages are computed once for all completions of an update and carry no gradient. There is no entropy
bonus, as in the published code.

Departures: advantages are whitened over the update and not over each minibatch (the first release's way). `score_at:
after_eos` puts the score on a state after EOS, as the code of arXiv:2403.17031 does; the critic's error on that state
then joins the sum, and the count stays that of the tokens (theirs counts it too). PPO-ptx, the mixture with pretraining
text of arXiv:2203.02155, is not here. The text of the papers was not available: equations and values follow the code
that their authors released, and secondary sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat

from nashtune.errors import InputError
from nashtune.interfaces import Advantages, Loss, LossBatch, LossOutput, RolloutBatch, Step
from nashtune.plugins import Component, hookimpl
from nashtune.rl.estimators import kl_loss, per_completion, refuse_k1_in_loss
from nashtune.rl.gae import gae
from nashtune.rl.rewards import compose, ended, refuse_two_rules, token_rewards
from nashtune.rl.surrogate import clipped_surrogate, largest
from nashtune.rl.whitening import Whitening, whiten

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: S = completions (rollouts), M = tokens of all of them, one completion after another.


def value_loss(value: Tensor, old: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Half the squared error of the critic, the larger of free and clipped, with the gradient of `value`."""
    free = (value - target) ** 2
    if clip is None:
        return 0.5 * free
    held = (value.clamp(old - clip, old + clip) - target) ** 2
    return 0.5 * free.maximum(held)


def explained_variance(target_M: Tensor, value_M: Tensor) -> Tensor:
    """1 - var(target - value) / var(target): 1 for a perfect critic, 0 for a constant one and for equal targets."""
    spread = target_M.double().var(correction=0)
    left = (target_M - value_M).double().var(correction=0)
    return (1.0 - left / spread) if bool(spread > 0) else spread


class PPOLoss(Loss):
    """Clipped surrogate of each token, with generalised advantages and a clipped critic.

    Args:
        clip: Half-width eps of the ratio's interval, > 0 (all published code: 0.2).
        value_clip: How far the critic may move within an update, > 0, in the units of the reward (code: 0.2); None: as
            far as it likes.
        vf_coef: Weight of the critic's error, >= 0 (code: 0.1).
        gamma: Discount, in [0, 1] (code: 1).
        lam: GAE's weight of longer returns, in [0, 1] (code: 0.95).
        kl_in: Where the KL penalty is: in the `reward` (papers), or in the `loss`, on the ratio now.
        kl_estimator: `k1` (papers, in the reward), `k2` or `k3`. In the loss k1 would move nothing and is refused.
        whiten_advantages: Variance over tokens: `population` (first release and N+ code), `bessel` (TRL), or `none`.
        whiten_rewards: The same for rewards, whose mean is kept (first release: on for stories; later code: none).
        score_at: Where the score is paid: on the `last` token (first release, TRL's former PPO), or `after_eos`, on a
            state of its own where a completion ended by itself (N+ code).
        no_eos_score: Score of a completion that reached the length limit, in place of the oracle's (N+ code: -1).
        no_eos_penalty: What is taken off its score instead, >= 0 (TRL: 1 in its example).
        value_init: What the critic starts as: `zero`, a linear head on the policy's trunk (first release), or
            `reward_model`, a copy of the oracle's (N+ code, arXiv:2203.02155).
    """

    rows: ClassVar[RowKind] = "rollouts"
    beta_optional: ClassVar[bool] = True
    anchors: ClassVar[tuple[str, ...]] = ("ref",)
    uses_values: ClassVar[bool] = True
    uses_old: ClassVar[bool] = True
    mean_over: Literal["rows", "tokens"] = "tokens"

    def __init__(
        self,
        *,
        clip: PositiveFloat = 0.2,
        value_clip: PositiveFloat | None = 0.2,
        vf_coef: NonNegativeFloat = 0.1,
        gamma: ClosedUnitInterval = 1.0,
        lam: ClosedUnitInterval = 0.95,
        kl_in: Literal["reward", "loss"] = "reward",
        kl_estimator: Literal["k1", "k2", "k3"] = "k1",
        whiten_advantages: Literal["none", "population", "bessel"] = "population",
        whiten_rewards: Literal["none", "population", "bessel"] = "none",
        score_at: Literal["last", "after_eos"] = "last",
        no_eos_score: float | None = None,
        no_eos_penalty: NonNegativeFloat = 0.0,
        value_init: Literal["zero", "reward_model"] = "zero",
    ) -> None:
        refuse_k1_in_loss(kl_in, kl_estimator)
        refuse_two_rules(no_eos_score, no_eos_penalty)
        self.clip = float(clip)
        self.value_clip = None if value_clip is None else float(value_clip)
        self.vf_coef = float(vf_coef)
        self.gamma, self.lam = float(gamma), float(lam)
        self.kl_in, self.kl_estimator = kl_in, kl_estimator
        self.whiten_advantages: Whitening = whiten_advantages
        self.whiten_rewards: Whitening = whiten_rewards
        self.score_at = score_at
        self.no_eos_score = None if no_eos_score is None else float(no_eos_score)
        self.no_eos_penalty = float(no_eos_penalty)
        self.critic_init = value_init

    def judged(self, batch: RolloutBatch) -> Tensor:
        """Scores (S,), lower for completions that reached the length limit."""
        return ended(batch.score, batch.finished, self.no_eos_score, self.no_eos_penalty)

    def advantages(self, batch: RolloutBatch, step: Step) -> Advantages:
        """Advantages and the critic's targets (M,), over all completions of an update.

        Metrics: `return`, each completion's score minus its penalties, and `explained_variance` of the critic over all
        tokens.
        """
        found = compose(
            batch,
            step.beta,
            kl_in=self.kl_in,
            estimator=self.kl_estimator,
        )
        value_M = cast("Tensor", batch.old_value).to(found.penalty.dtype)
        on_token_S, end_reward_S, end_value_S, has_end_S = self._place(found.score, batch)
        reward_M = token_rewards(on_token_S, found.penalty, batch.lengths)
        reward_M, end_reward_S = self._whitened(reward_M, end_reward_S, has_end_S)
        end_advantage_S = end_reward_S - end_value_S
        raw_M = gae(
            reward_M,
            value_M,
            batch.lengths,
            gamma=self.gamma,
            lam=self.lam,
            end_value_S=end_value_S,
            end_advantage_S=end_advantage_S,
        )
        target_M = raw_M + value_M
        metrics = {"return": found.total, "explained_variance": explained_variance(target_M, value_M)}
        return Advantages(
            advantage=whiten(raw_M, self.whiten_advantages),
            target=target_M,
            target_end=end_reward_S if self.score_at == "after_eos" else None,
            metrics=metrics,
        )

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Sum over each completion's tokens (S,); the objective divides by the tokens of the optimiser step.

        Metrics, per token: `policy_loss`, `value_loss` (before vf_coef), `ratio`, `clip_fraction`, `approx_kl`; per
        completion: `ratio_max`. The entropy would need the logits of all tokens and is not measured.
        """
        rollouts = cast(RolloutBatch, batch)
        old_M, advantage_M, value_M, old_value_M, target_M = (
            cast("Tensor", part)
            for part in (rollouts.old, rollouts.advantage, rollouts.value, rollouts.old_value, rollouts.target)
        )
        policy_M, metrics = clipped_surrogate(rollouts.token_logp - old_M, advantage_M, self.clip)
        critic_M = value_loss(value_M, old_value_M, target_M, self.value_clip)
        values_M = policy_M + self.vf_coef * critic_M
        if self.kl_in == "loss" and step.beta is not None:
            values_M = values_M + kl_loss(rollouts, step.beta, self.kl_estimator)
        values_S = per_completion(values_M, rollouts)
        if self.score_at == "after_eos":
            values_S = values_S + self.vf_coef * self._end_loss(rollouts)
        return LossOutput(
            values=values_S,
            metrics={
                "policy_loss": policy_M.detach(),
                "value_loss": critic_M.detach(),
                **metrics,
                "ratio_max": largest(metrics["ratio"], rollouts.sequence, len(rollouts.lengths)),
            },
        )

    def _place(self, score_S: Tensor, batch: RolloutBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score on the last token, score after it, the critic's value there, and where that state is (S,) each."""
        nothing_S = score_S.new_zeros(score_S.shape)
        if self.score_at == "last":
            return score_S, nothing_S, nothing_S, nothing_S.bool()
        end_S, finished_S = _end_state(batch.old_value_end, batch.finished)
        return (
            nothing_S.where(finished_S, score_S),
            score_S.where(finished_S, nothing_S),
            end_S.to(score_S.dtype).where(finished_S, nothing_S),
            finished_S,
        )

    def _whitened(self, reward_M: Tensor, end_S: Tensor, has_end_S: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        white = whiten(torch.cat([reward_M, end_S[has_end_S]]), self.whiten_rewards, keep_mean=True)
        return white[: len(reward_M)], end_S.masked_scatter(has_end_S, white[len(reward_M) :])

    def _end_loss(self, batch: RolloutBatch) -> Tensor:
        """The critic's error on the states after EOS (S,); 0 where a completion did not end."""
        end_S, finished_S = _end_state(batch.value_end, batch.finished)
        old_S, target_S = cast("Tensor", batch.old_value_end), cast("Tensor", batch.target_end)
        error_S = value_loss(end_S, old_S, target_S, self.value_clip)
        return error_S.where(finished_S, error_S.new_zeros(error_S.shape))


def _end_state(value_S: Tensor | None, finished_S: Tensor | None) -> tuple[Tensor, Tensor]:
    if value_S is None or finished_S is None:
        raise InputError(
            "loss.score_at: after_eos needs the critic's value after the last token (old_value_end, value_end) and "
            "whether each completion ended (finished); use score_at: last"
        )
    return value_S, finished_S


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `ppo`."""
    return [Component("loss", "ppo", "nashtune_plugins.ppo:PPOLoss")]
