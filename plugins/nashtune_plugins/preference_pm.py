"""RLHF Workflow: From Reward Modeling to Online RLHF, arXiv:2405.07863: its pairwise preference model.

What is new: a language model reads the prompt and both answers and writes one token, `A` or `B`, so that preferences
need not come from a score of each answer and may be intransitive. It is trained as a language model is, on that token
alone.

Equations, for the log-probs l_w of the token that names the better answer and l_l of the other token, behind the
question that shows both:

    loss = -p log sigma(l_w - l_l) - (1 - p) log sigma(l_l - l_w)      normalise: labels
    loss = -p l_w - (1 - p) l_l                                        normalise: vocabulary

sigma(l_w - l_l) is the probability of the token among the two, which is what the oracle `preference_model` reads.

Conventions: a completion is one token, without EOS, so that sums and means over its tokens are the same; one value per
question. Each pair gives two questions, one in each order. There is no reference and no beta.

Departures: the authors' code shows each pair once, in a random order, and takes the loss over the whole vocabulary
(`normalise: vocabulary`). Both orders are shown here, because the oracle asks both; the two tokens alone are the
default because the oracle compares nothing else. Soft labels p are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from nashtune.interfaces import Loss, LossBatch, LossOutput, PairBatch, Step
from nashtune.plugins import Component, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind

# Legend: B = questions.


def preference_cross_entropy(
    right_B: Tensor,
    wrong_B: Tensor,
    *,
    p_right_B: Tensor | None = None,
    normalise: Literal["labels", "vocabulary"] = "labels",
) -> Tensor:
    """Cross-entropy of the label and what the model answers, one value per question (B,).

    Args:
        right_B: Log-prob of the token that names the better answer, in nats.
        wrong_B: Log-prob of the other token.
        p_right_B: Probability that the label is right, in [0, 1]; None means 1.
        normalise: Over the two tokens, or over the vocabulary.
    """
    from torch.nn.functional import logsigmoid

    if normalise == "labels":
        gap_B = right_B - wrong_B
        right_B, wrong_B = logsigmoid(gap_B), logsigmoid(-gap_B)
    if p_right_B is None:
        return -right_B
    p_B = p_right_B.to(right_B.dtype)
    return -p_B * right_B - (1.0 - p_B) * wrong_B


class PreferencePMLoss(Loss):
    """Cross-entropy of one answer token behind a question that shows two answers.

    Args:
        normalise: `labels` makes the two answer tokens' probabilities sum to 1, as the oracle does (ours); `vocabulary`
            is next-token prediction (the authors' code).
    """

    rows: ClassVar[RowKind] = "comparisons"
    anchors: ClassVar[tuple[str, ...]] = ()
    uses_beta: ClassVar[bool] = False
    uses_p_chosen: ClassVar[bool] = True
    reward_unit = "nats"

    def __init__(self, *, normalise: Literal["labels", "vocabulary"] = "labels") -> None:
        self.normalise: Literal["labels", "vocabulary"] = normalise

    def __call__(self, batch: LossBatch, step: Step) -> LossOutput:
        """Loss of each question (B,).

        The rewards are the log-probs of the two tokens; `answers` is the probability of the two together.
        """
        pairs = cast(PairBatch, batch)
        right_B, wrong_B = pairs.policy_chosen, pairs.policy_rejected
        return LossOutput(
            values=preference_cross_entropy(right_B, wrong_B, p_right_B=pairs.p_chosen, normalise=self.normalise),
            reward_chosen=right_B.detach(),
            reward_rejected=wrong_B.detach(),
            metrics={"answers": right_B.detach().exp() + wrong_B.detach().exp()},
        )


@hookimpl
def nashtune_components() -> list[Component]:
    """The loss `preference_pm`."""
    return [Component("loss", "preference_pm", "nashtune_plugins.preference_pm:PreferencePMLoss")]
