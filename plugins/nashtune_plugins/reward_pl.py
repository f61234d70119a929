"""Principled Reinforcement Learning with Human Feedback from Pairwise or K-wise Comparisons, arXiv:2301.11270.

What is new: a ranking of K answers is learnt by its own likelihood under the Plackett-Luce model, and not split into
pairs: the true maximum likelihood estimator, which needs fewer rankings for the same error. Its first factor alone asks
only which answer is best, as the reward model of Fine-Tuning Language Models from Human Preferences (arXiv:1909.08593)
does with four.

Equations, for scores r_1 ... r_K of the answers of a prompt, best first:

    loss  = - sum_{k=1}^{K-1} [ r_k - log sum_{j>=k} exp r_j ]
    top_1:  - [ r_1 - log sum_j exp r_j ]

Conventions: a score is the head's output at the last token of the whole conversation; one value per prompt, a sum over
its ranks and not a mean. Of an ensemble the value is the mean over members of each one's own loss. There is no
reference and no beta. With two answers it is the Bradley-Terry loss.

Departures: the text of the paper was not available beyond its abstract; the likelihood is the Plackett-Luce model's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from nashtune.interfaces import Loss, LossBatch, LossOutput, ScoreBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: L = lists, K = members of an ensemble, R = answers of one list.


def plackett_luce(scores_RK: Tensor, *, top_1: bool = False) -> Tensor:
    """Negative log-likelihood of one ranking under each member's scores (K,).

    Args:
        scores_RK: Scores of its answers, best first.
        top_1: Whether only the first place counts.
    """
    rest_RK = scores_RK.flip(0).logcumsumexp(0).flip(0)  # log sum over this answer and those ranked below it
    terms_RK = rest_RK - scores_RK  # the last one is 0: it is chosen from itself alone
    return terms_RK[0] if top_1 else terms_RK[:-1].sum(0)


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

        `best_first` is whether the best one has the highest mean score.
        """
        from torch import split, stack

        lists = cast(ScoreBatch, batch)
        parts = split(lists.scores, lists.sizes.tolist())
        values_LK = stack([plackett_luce(scores_RK, top_1=self.top_1) for scores_RK in parts])
        if lists.share is not None:
            values_LK = lists.share.to(values_LK.dtype) * values_LK
        means = [scores_RK.detach().mean(-1) for scores_RK in parts]
        return LossOutput(
            values=values_LK.mean(-1),
            reward_chosen=stack([mean_R[0] for mean_R in means]),
            reward_rejected=stack([mean_R[-1] for mean_R in means]),
            metrics={"best_first": stack([(mean_R[0] > mean_R[1:].max()).to(mean_R.dtype) for mean_R in means])},
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `reward_pl`."""
    return [Component("loss", "reward_pl", "nashtune_plugins.reward_pl:RewardPLLoss")]
