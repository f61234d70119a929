"""The reward of each token: a penalty for leaving the reference on all of them, and the oracle's score on the last.

Legend: S = completions, M = tokens of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nashtune.rl.estimators import Estimator, drawn, kl_terms, per_completion, per_token

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces import RolloutBatch


@dataclass(frozen=True, kw_only=True)
class Composed:
    """What a completion is rewarded with; without gradient.

    Args:
        score: Of each completion (S,).
        penalty: β times the KL estimate of each token; 0 where the KL penalty is in the loss (M,).
        total: Score minus the penalties of all tokens (S,).
    """

    score: Tensor
    penalty: Tensor
    total: Tensor


def compose(
    batch: RolloutBatch,
    beta: Tensor | None,
    *,
    kl_in: Literal["reward", "loss"],
    estimator: Estimator,
) -> Composed:
    """Rewards under the policy that drew the completions.

    Args:
        batch: All completions of an update.
        beta: A scalar, or one per completion (S,); None where there is no KL penalty.
        kl_in: Whether the KL penalty is here.
        estimator: Of the KL divergence.
    """
    logp_M, ref_M = drawn(batch), batch.anchors["ref"]
    if beta is None or kl_in == "loss":
        penalty_M = logp_M.new_zeros(logp_M.shape)
    else:
        penalty_M = per_token(beta, batch.sequence).to(logp_M.dtype) * kl_terms(logp_M, ref_M, estimator)
    score_S = batch.score.to(logp_M.dtype)
    return Composed(score=score_S, penalty=penalty_M, total=score_S - per_completion(penalty_M, batch))


def ended(score_S: Tensor, finished_S: Tensor | None, replaced: float | None, penalty: float) -> Tensor:
    """Scores after what a completion without an end loses (S,).

    Args:
        score_S: The oracle's.
        finished_S: Whether a completion ended by itself; None: all did.
        replaced: Score of those that did not, in place of the oracle's.
        penalty: What is taken off their score, >= 0.
    """
    if finished_S is None:
        return score_S
    cut_S = score_S - penalty if replaced is None else score_S.new_full(score_S.shape, replaced)
    return score_S.where(finished_S, cut_S)


def refuse_two_rules(no_eos_score: float | None, no_eos_penalty: float) -> None:
    """Refuse a penalty on a score that is replaced.

    Raises:
        ValueError: both are set.
    """
    if no_eos_score is not None and no_eos_penalty > 0:
        raise ValueError("no_eos_score replaces the score that no_eos_penalty would lower; set one of them")


def token_rewards(score_S: Tensor, penalty_M: Tensor, lengths_S: Tensor) -> Tensor:
    """Reward of each token (M,): minus its penalty, plus the score on the last token of its completion."""
    reward_M = -penalty_M
    return reward_M.index_add(0, last_tokens(lengths_S), score_S)


def last_tokens(lengths_S: Tensor) -> Tensor:
    """Place of the last token of each completion among all tokens (S,)."""
    return lengths_S.cumsum(0) - 1
