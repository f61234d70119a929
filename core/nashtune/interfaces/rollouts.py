"""What policy gradients see, and what they compute before an update.

Legend: S = rollouts (completions that the policy drew), M = completion tokens of all of them.
Fields end with [shape; unit; when they are there]: the tables of docs/extend are made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """What a policy-gradient loss sees: S completions that the policy drew, token by token.

    Nothing is padded and no prompt token is here: every (M,) tensor holds the completions' own tokens, EOS included.

    Args:
        token_logp: log pi(y_n|x, y_<n) of every token, with gradient, completions one after another [(M,); nats;
            always].
        sequence: Which completion each token belongs to, 0 ... S-1 [(M,); index; always].
        lengths: Completion tokens, EOS included [(S,); tokens; always].
        counts: The same as numbers on the host; None where nobody counted them there [S numbers; tokens; where the host
            counted them].
        score: What the oracle said of each completion: P(y > y') against an opponent's, or a reward [(S,); probability
            or reward; always].
        anchors: Per-token log-probs under the spec's references, by the name the spec gives them, without gradient
            [(M,) each; nats; names in `anchors` of the class].
        group: Which prompt each completion answers; the completions of a prompt need not be neighbours [(S,); index;
            always in training].
        finished: Whether it ended by EOS or a stop string, and not at the length limit [(S,); true or false; always in
            training].
        variance: Of the reward [(S,); reward squared; oracles that give it; declare `uses_variance`].
        old: Log-prob of each token under the policy that drew it, before the update [(M,); nats; in training, of
            rollouts that have rewards].
        old_value: Critic's value before each token, before the update [(M,); reward; the loss declares `uses_values`].
        value: The same now, with gradient [(M,); reward; the loss declares `uses_values`; in `Loss.__call__` alone].
        old_value_end: Critic's value after the last token, before the update [(S,); reward; the loss declares
            `uses_values`].
        value_end: The same now, with gradient [(S,); reward; the loss declares `uses_values`; in `Loss.__call__`
            alone].
        advantage: What `Loss.advantages` made [(M,); reward; in `Loss.__call__`, where `advantages` gave it].
        target: What the critic learns: returns [(M,); reward; in `Loss.__call__`, where `advantages` gave it].
        target_end: What it learns of the state after the last token [(S,); reward; in `Loss.__call__`, where
            `advantages` gave it].
        weight: Share of each completion in what is averaged over completions; None: equal shares. Where all completions
            of a prompt are enumerated it is their probability [(S,); share; bandits and vectors].
    """

    token_logp: Tensor
    sequence: Tensor
    lengths: Tensor
    score: Tensor
    anchors: Mapping[str, Tensor] = field(default_factory=dict)
    group: Tensor | None = None
    finished: Tensor | None = None
    variance: Tensor | None = None
    old: Tensor | None = None
    old_value: Tensor | None = None
    value: Tensor | None = None
    old_value_end: Tensor | None = None
    value_end: Tensor | None = None
    advantage: Tensor | None = None
    target: Tensor | None = None
    target_end: Tensor | None = None
    weight: Tensor | None = None
    counts: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Advantages:
    """What a policy-gradient loss computes once before an update, over all of its completions; without gradient.

    Args:
        advantage: Coefficient of each token's log-ratio [(M,); reward; required].
        target: What the critic learns [(M,); reward; with a critic].
        target_end: What it learns of the state after the last token [(S,); reward; where a reward comes there].
        metrics: Values to log [(S,) or a scalar each; any; optional].
    """

    advantage: Tensor
    target: Tensor | None = None
    target_end: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
