"""What policy gradients see, and what they compute before an update.

Legend: S = rollouts (completions that the policy drew), M = completion tokens of all of them.
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
        token_logp: log pi(y_n|x, y_<n) of every token, with gradient, completions one after another (M,).
        sequence: Which completion each token belongs to, 0 ... S-1 (M,).
        lengths: Completion tokens, EOS included (S,).
        score: What the oracle said of each completion: P(y > y') against an opponent's, or a reward (S,).
        anchors: Per-token log-probs under the spec's references, by name (M,).
        group: Which prompt each completion answers (S,); the completions of a prompt need not be neighbours.
        finished: Whether it ended by EOS or a stop string, and not at the length limit (S,).
        variance: Of the reward (S,), where the oracle knows it.
        old: Log-prob of each token under the policy that drew it (M,), before the update.
        old_value: Critic's value before each token, before the update (M,).
        value: The same now, with gradient (M,).
        old_value_end: Critic's value after the last token, before the update (S,).
        value_end: The same now, with gradient (S,).
        advantage: What `Loss.advantages` made (M,).
        target: What the critic learns: returns (M,).
        target_end: What it learns of the state after the last token (S,).
        weight: Share of each completion in what is averaged over completions (S,); None: equal shares. Where all
            completions of a prompt are enumerated it is their probability.
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


@dataclass(frozen=True, kw_only=True)
class Advantages:
    """What a policy-gradient loss computes once before an update, over all of its completions; without gradient.

    Args:
        advantage: Coefficient of each token's log-ratio (M,).
        target: What the critic learns (M,); None without a critic.
        target_end: What it learns of the state after the last token (S,), where a reward comes there.
        metrics: Values to log: one per completion (S,), or scalars.
    """

    advantage: Tensor
    target: Tensor | None = None
    target_end: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
