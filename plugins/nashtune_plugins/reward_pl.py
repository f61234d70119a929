"""Principled Reinforcement Learning with Human Feedback from Pairwise or K-wise Comparisons, arXiv:2301.11270.

What is new: a ranking of K answers is learnt by its own likelihood under the Plackett-Luce model, and not split into
pairs: the true maximum likelihood estimator, which needs fewer rankings for the same error. Its first factor alone asks
only which answer is best, as the reward model of Fine-Tuning Language Models from Human Preferences (arXiv:1909.08593)
does with four.

Equations, for scores r_1 ... r_K of the answers of a prompt, best first:

    loss  = - sum_{k=1}^{K-1} [ r_k - log sum_{j>=k} exp r_j ]
    top_1:  - [ r_1 - log sum_j exp r_j ]

Equal ranks: a level G of answers of the same rank, with S the answers of G and of all levels below it, adds

    - sum_{i in G} [ r_i - log sum_{j in S} exp r_j ]                (the last level adds nothing)
    top_1:  the mean over the answers of the first level

Conventions: a score is the head's output at the last token of the whole conversation; one value per prompt, a sum over
its ranks and not a mean. Of an ensemble the value is the mean over members of each one's own loss. There is no
reference and no beta. With two answers it is the Bradley-Terry loss.

Departures: the text of the paper was not available beyond its abstract; the likelihood is the Plackett-Luce model's.
Equal ranks are ours: one denominator for a level is Breslow's approximation of the sum over the orders that the level
may have. Nothing is ranked below the last level, whose orders together have the probability 1, so that it adds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from nashtune.interfaces import Loss, LossBatch, LossOutput, ScoreBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: L = lists, K = members of an ensemble, R = answers of one list.


def plackett_luce(scores_RK: Tensor, level_R: Tensor | None = None, *, top_1: bool = False) -> Tensor:
    """Negative log-likelihood of one ranking under each member's scores (K,).

    Args:
        scores_RK: Scores of its answers, best first.
        level_R: Rank of each, 0 for the best and not decreasing, the same where none is better; None: all differ.
        top_1: Whether only the first place counts.
    """
    rest_RK = scores_RK.flip(0).logcumsumexp(0).flip(0)  # log sum over this answer and those ranked below it
    if level_R is None:
        terms_RK = rest_RK - scores_RK  # the last one is 0: it is chosen from itself alone
        return terms_RK[0] if top_1 else terms_RK[:-1].sum(0)
    first_R = (level_R.unsqueeze(-1) > level_R).sum(-1)  # of each answer's level, the place of its first answer
    terms_RK = rest_RK[first_R] - scores_RK
    # sums under a mask: picking answers out would ask the device how many they are
    counts_R1 = (level_R == level_R[0] if top_1 else level_R < level_R[-1]).unsqueeze(-1)
    total_K = terms_RK.where(counts_R1, 0.0).sum(0)
    return total_K / counts_R1.sum() if top_1 else total_K


def _best_first(mean_R: Tensor, level_R: Tensor | None) -> Tensor:
    """Whether the highest of the scores is one of the first level's (a scalar)."""
    if level_R is None:
        return mean_R[0] > mean_R[1:].max()
    top_R = level_R == 0
    return mean_R.where(top_R, -float("inf")).max() > mean_R.where(~top_R, -float("inf")).max()


class RewardPLLoss(Loss):
    """Plackett-Luce loss of ranked lists.

    Args:
        top_1: Whether only the first place counts, so that the order of the others says nothing; the paper ranks all.
    """

    rows: ClassVar[RowKind] = "ranked"
    reads: ClassVar[Literal["logprobs", "scores"]] = "scores"
    anchors: ClassVar[tuple[str, ...]] = ()
    uses_beta: ClassVar[bool] = False

    def __init__(self, *, top_1: bool = False) -> None:
        self.top_1 = top_1

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each list (L,), and the members' mean scores of its best and of its worst.

        `best_first` is whether the best one, or one of several best, has the highest mean score.
        """
        from torch import split, stack

        lists = cast(ScoreBatch, batch)
        sizes = lists.split_sizes()
        parts = split(lists.scores, sizes)
        levels = split(lists.levels, sizes) if lists.levels is not None else [None] * len(sizes)
        values_LK = stack([plackett_luce(*one, top_1=self.top_1) for one in zip(parts, levels, strict=True)])
        if lists.share is not None:
            values_LK = lists.share.to(values_LK.dtype) * values_LK
        means = [scores_RK.detach().mean(-1) for scores_RK in parts]
        first = [_best_first(*one) for one in zip(means, levels, strict=True)]
        return LossOutput(
            values=values_LK.mean(-1),
            reward_chosen=stack([mean_R[0] for mean_R in means]),
            reward_rejected=stack([mean_R[-1] for mean_R in means]),
            metrics={"best_first": stack(first).to(lists.scores.dtype)},
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `reward_pl`."""
    return [Component("loss", "reward_pl", "nashtune_plugins.reward_pl:RewardPLLoss")]
