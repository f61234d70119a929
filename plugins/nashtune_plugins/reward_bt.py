"""Bradley-Terry reward models, arXiv:2009.01325, and with K answers a prompt, arXiv:2203.02155.

The papers: Learning to summarize from human feedback; Training language models to follow instructions with human
feedback.

What is new there: a language model with a linear head is trained on comparisons of two answers, so that the difference
of its scores is the log-odds that a person prefers one; the second paper ranks K answers of a prompt and trains on all
their ordered pairs together.

Equations, for scores r_w of the better and r_l of the worse answer, d = r_w - r_l - m:

    q    = p (1 - a) + (1 - p) a                                       p = 1 where labels are hard
    loss = -q log sigma(d) - (1 - q) log sigma(-d)
           + eta (r_w + r_l)^2 + lambda/2 (r_w^2 + r_l^2)
    K answers, best first: mean over i < j of -log sigma(r_i - r_j) + lambda/2 (r_i^2 + r_j^2), without equal ranks

m >= 0 is the margin of a pair (column `margin`, as Llama 2 has it), a the label smoothing, eta the centring of
arXiv:2312.09244 (0.01 there), lambda the score penalty of Open-Assistant's code (0.001 there).

Conventions: a score is the head's output at the last token of the whole conversation; one value per pair, or per
prompt: its pairs are averaged within the prompt, so that a long list does not outweigh a short one. Of an ensemble the
value is the mean over members of each one's own loss; members share nothing in it. There is no reference and no beta.

Departures: answers of equal rank are compared with the others and not with one another; the paper does not say what is
done with them. The paper's loss is the first line with p = 1, m = 0, a = 0; the rest is off unless the spec says so.
Soft labels with a margin are ours and agree with each alone. -log(sigma(d) + 1e-5), which some code has against
overflow, caps the gradient of pairs that are very wrong and is not offered: log sigma is computed without overflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from jsonargparse.typing import NonNegativeFloat, restricted_number_type

from nashtune.interfaces import Loss, LossBatch, LossOutput, ScoreBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: L = pairs or lists, K = members of an ensemble, R = answers of one list, P = its ordered pairs.

LabelSmoothing = restricted_number_type("LabelSmoothing", float, [(">=", 0.0), ("<", 0.5)])


def bradley_terry(
    chosen_LK: Tensor,
    rejected_LK: Tensor,
    *,
    margin_L: Tensor | None = None,
    p_chosen_L: Tensor | None = None,
    label_smoothing: float = 0.0,
    centring: float = 0.0,
    score_l2: float = 0.0,
) -> Tensor:
    """Cross-entropy of label and sigma(r_w - r_l - m), with penalties on the scores, of each pair and member (L, K).

    Args:
        chosen_LK: Scores r_w.
        rejected_LK: Scores r_l.
        margin_L: m >= 0, in the scores' units; None means 0.
        p_chosen_L: P(chosen > rejected), in [0, 1]; None means 1.
        label_smoothing: Probability a that a label is flipped, in [0, 1].
        centring: eta >= 0.
        score_l2: lambda >= 0.
    """
    from torch.nn.functional import logsigmoid

    gap_LK = chosen_LK - rejected_LK
    if margin_L is not None:
        gap_LK = gap_LK - margin_L.to(gap_LK.dtype).unsqueeze(-1)
    p_LK = 1.0 if p_chosen_L is None else p_chosen_L.to(gap_LK.dtype).unsqueeze(-1)
    q_LK = p_LK * (1.0 - label_smoothing) + (1.0 - p_LK) * label_smoothing
    values_LK = -q_LK * logsigmoid(gap_LK) - (1.0 - q_LK) * logsigmoid(-gap_LK)
    if centring:
        values_LK = values_LK + centring * (chosen_LK + rejected_LK) ** 2
    if score_l2:
        values_LK = values_LK + 0.5 * score_l2 * (chosen_LK**2 + rejected_LK**2)
    return values_LK


def over_members(values_LK: Tensor, share_LK: Tensor | None) -> Tensor:
    """Mean over the members of each one's share of the value (L,)."""
    return (values_LK if share_LK is None else share_LK.to(values_LK.dtype) * values_LK).mean(-1)


class RewardBTLoss(Loss):
    """Bradley-Terry loss of pairs.

    Args:
        label_smoothing: Assumed probability that a label is flipped, in [0, 0.5); the paper has none.
        centring: Weight of (r_w + r_l)^2, >= 0, which keeps scores near 0; the paper has none, 0.01 is recommended.
        score_l2: Weight of (r_w^2 + r_l^2)/2, >= 0; the paper has none, Open-Assistant's code has 0.001.
    """

    reads: ClassVar[Literal["logprobs", "scores"]] = "scores"
    anchors: ClassVar[tuple[str, ...]] = ()
    uses_beta: ClassVar[bool] = False
    uses_p_chosen: ClassVar[bool] = True
    uses_margin: ClassVar[bool] = True

    # mypy wants a class statement; jsonargparse and our static reader want this call
    def __init__(
        self,
        *,
        label_smoothing: LabelSmoothing = 0.0,  # type: ignore[valid-type]
        centring: NonNegativeFloat = 0.0,
        score_l2: NonNegativeFloat = 0.0,
    ) -> None:
        self.label_smoothing = float(LabelSmoothing(label_smoothing))  # at 0.5 labels would say nothing
        self.centring = float(centring)
        self.score_l2 = float(score_l2)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each pair (L,), and the members' mean scores."""
        pairs = cast(ScoreBatch, batch)
        chosen_LK, rejected_LK = pairs.scores.reshape(-1, 2, pairs.scores.shape[-1]).unbind(1)
        values_LK = bradley_terry(
            chosen_LK,
            rejected_LK,
            margin_L=pairs.margin,
            p_chosen_L=pairs.p_chosen,
            label_smoothing=self.label_smoothing,
            centring=self.centring,
            score_l2=self.score_l2,
        )
        return LossOutput(
            values=over_members(values_LK, pairs.share),
            reward_chosen=chosen_LK.detach().mean(-1),
            reward_rejected=rejected_LK.detach().mean(-1),
        )


class RewardBTRankedLoss(Loss):
    """Bradley-Terry loss of ranked lists: the mean over all ordered pairs of a prompt; equal ranks make no pair.

    Args:
        score_l2: Weight of (r_i^2 + r_j^2)/2 of each pair, >= 0; the paper has none, Open-Assistant's code has 0.001.
    """

    rows: ClassVar[RowKind] = "ranked"
    reads: ClassVar[Literal["logprobs", "scores"]] = "scores"
    anchors: ClassVar[tuple[str, ...]] = ()
    uses_beta: ClassVar[bool] = False

    def __init__(self, *, score_l2: NonNegativeFloat = 0.0) -> None:
        self.score_l2 = float(score_l2)

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each list (L,), and the members' mean scores of its best and of its worst.

        `pairs_right` is the share of its pairs that the mean scores order as the list does.
        """
        from torch import ones_like, split, stack, triu_indices

        lists = cast(ScoreBatch, batch)
        values, right = [], []
        sizes = lists.split_sizes()
        levels = split(lists.levels, sizes) if lists.levels is not None else [None] * len(sizes)
        for scores_RK, level_R in zip(split(lists.scores, sizes), levels, strict=True):
            better, worse = triu_indices(len(scores_RK), len(scores_RK), 1, device=scores_RK.device)
            values_PK = bradley_terry(scores_RK[better], scores_RK[worse], score_l2=self.score_l2)
            mean_R = scores_RK.detach().mean(-1)
            right_P = ((mean_R[better] - mean_R[worse]).sign() + 1.0) / 2.0
            # a weight and no selection, whose size only the device would know
            weight_P = ones_like(right_P)
            if level_R is not None:
                weight_P = (level_R[better] < level_R[worse]).to(right_P.dtype)
            values.append((weight_P.unsqueeze(-1) * values_PK).sum(0) / weight_P.sum())
            right.append((weight_P * right_P).sum() / weight_P.sum())
        ends = lists.sizes.cumsum(0)
        mean_N = lists.scores.detach().mean(-1)
        return LossOutput(
            values=over_members(stack(values), lists.share),
            reward_chosen=mean_N[ends - lists.sizes],
            reward_rejected=mean_N[ends - 1],
            metrics={"pairs_right": stack(right)},
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The losses `reward_bt` and `reward_bt_ranked`."""
    return [
        Component("loss", "reward_bt", "nashtune_plugins.reward_bt:RewardBTLoss"),
        Component("loss", "reward_bt_ranked", "nashtune_plugins.reward_bt:RewardBTRankedLoss"),
    ]
