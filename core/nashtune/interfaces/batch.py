"""What travels between data, engines, losses and KL controllers.

Legend: B = pairs, E = examples (single completions), S = rollouts, L = ranked lists, N = sequences in a batch,
K = members of an ensemble, T = positions, M = completion tokens.
Log-probs are sums over completion tokens, EOS included, in nats, unless a name says otherwise.
What a loss is given and gives ends with [shape; unit; when it is there]: the tables of docs/extend are made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from nashtune.interfaces.rollouts import RolloutBatch
from nashtune.interfaces.scores import ScoreBatch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nashtune.interfaces.layout import Layout

RowKind = Literal["pairs", "examples", "rollouts", "ranked", "comparisons"]
"""What a loss trains on. `comparisons` are pairs whose prompt shows two answers and whose completions name one."""


@dataclass(kw_only=True)
class TokenBatch:
    """Token ids of a micro-batch, right-padded; what leaves the collate function and enters an engine.

    For `kind="pairs"` the N = 2B sequences are B chosen followed by B rejected. For `kind="examples"` they are E
    examples followed by E mismatched ones (prompt i with the next completion of another prompt), as KTO's KL estimate
    needs. For `kind="rollouts"` they are N completions that the policy drew itself. For `kind="ranked"` they are the
    completions of L prompts, each prompt's together and best first.

    Args:
        kind: What the sequences are.
        input_ids: Token ids (N, T).
        attention_mask: 1 on real tokens, 0 on padding (N, T).
        completion_mask: True on the tokens that are scored (completion, EOS included) (N, T).
        rows: Index of each pair, example, rollout or list in its data set (B,), (E,), (N,) or (L,).
        p_chosen: Probability that chosen is better, in [0, 1] (B,), when labels are soft.
        desirable: True where an example is desirable (E,), for unpaired data.
        win_rate: Estimated win rate of each completion against the policy that drew it, in [0, 1] (N,).
        score: What the oracle said of each rollout (N,).
        variance: Variance of the oracle's reward of each completion (N,), where it knows it.
        margin: By how much chosen should win, >= 0, in the units of a reward (B,).
        sizes: Completions of each ranked list (L,).
        counts: Numbers on the host, where the batch was counted there: completions of each ranked list (L,), or
            completion tokens of each rollout (N,).
        levels: Place of each completion in its ranked list, 0 for the best and the same where scores are equal (N,);
            absent: all differ.
        share: Weight of each row in the loss of each ensemble member (B, K) or (L, K); absent: 1.
        finished: Whether each rollout ended by EOS or a stop string, and not at the length limit (N,).
        group: Which prompt each rollout answers: a number within its round (N,).
        beta: From the KL controller, fixed for each rollout before the update (N,).
        per_token: What was computed for each rollout token before the update (M,), by name: `old` log-prob under the
            policy that drew it, `old_value`, `advantage`, `target` of the critic, and `ref:NAME` for references;
            `old_value_end` and `target_end` have one number for each rollout (N,).
        known: Log-prob sums under a reference that were computed before (N,), by the reference's name.
        trunk: Hidden state of the last token of each sequence (N, H), where a frozen trunk was run before.
        layout: Where its tokens are, as the run's engine counted them on the host; None where nothing was counted yet.
    """

    kind: RowKind
    input_ids: Tensor
    attention_mask: Tensor
    completion_mask: Tensor
    rows: Tensor
    p_chosen: Tensor | None = None
    desirable: Tensor | None = None
    win_rate: Tensor | None = None
    score: Tensor | None = None
    variance: Tensor | None = None
    margin: Tensor | None = None
    sizes: Tensor | None = None
    counts: tuple[int, ...] | None = None
    levels: Tensor | None = None
    share: Tensor | None = None
    finished: Tensor | None = None
    group: Tensor | None = None
    beta: Tensor | None = None
    per_token: Mapping[str, Tensor] = field(default_factory=dict)
    known: Mapping[str, Tensor] = field(default_factory=dict)
    trunk: Tensor | None = None
    layout: Layout | None = None

    def __len__(self) -> int:
        """Number of pairs, examples, rollouts or lists."""
        return int(self.rows.shape[0])

    def to(self, device: torch.device | str, **kwargs: Any) -> TokenBatch:
        """The same batch on another device (Lightning moves a batch by calling this)."""
        return self._each(lambda part: part.to(device, **kwargs))

    def pin_memory(self) -> TokenBatch:
        """The same batch in memory of the host that a CUDA device reads by itself: nobody waits for such a copy."""
        return self._each(lambda part: part.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> TokenBatch:
        parts = {name: change(value) for name, value in vars(self).items() if hasattr(value, "pin_memory")}
        tokens = {name: change(value) for name, value in self.per_token.items()}
        known = {name: change(value) for name, value in self.known.items()}
        return replace(self, **parts, per_token=tokens, known=known)


@dataclass(frozen=True, kw_only=True)
class LogProbs:
    """What an engine returns for the N sequences of a batch.

    Args:
        sums: Summed log-prob of each completion, in nats (N,), float32 or wider.
        lengths: Completion tokens, EOS included (N,).
        token_logp: Log-prob of each completion token, sequences one after another (M,).
    """

    sums: Tensor
    lengths: Tensor
    token_logp: Tensor


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A frozen distribution's log-probs of the same completions; no gradient flows through them.

    Args:
        chosen: Summed log-probs of the chosen completions [(B,); nats; always].
        rejected: Summed log-probs of the rejected completions [(B,); nats; always].
    """

    chosen: Tensor
    rejected: Tensor


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """What a pairwise loss sees.

    Args:
        policy_chosen: log pi(y_w|x), with gradient [(B,); nats; always].
        policy_rejected: log pi(y_l|x), with gradient [(B,); nats; always].
        len_chosen: Length of y_w, EOS included [(B,); tokens; always].
        len_rejected: Length of y_l, EOS included [(B,); tokens; always].
        anchors: Log-probs under the spec's references, by the name the spec gives them (`ref`, `aux`, ...), without
            gradient [`Anchor`: (B,) each; nats; names in `anchors` of the class].
        p_chosen: P(y_w > y_l), from 0 to 1; None: every label is certain [(B,); probability; soft labels; the loss
            declares `uses_p_chosen`].
        win_rate_chosen: Estimate of P(y_w > pi) against the policy that drew the pair, from 0 to 1 [(B,); probability;
            games whose pairing gives it; the loss declares `uses_win_rates`].
        win_rate_rejected: The same of y_l [(B,); probability; as `win_rate_chosen`].
        variance_chosen: Variance of the reward of y_w [(B,); reward squared; games whose oracle gives it; declare
            `uses_variance`].
        variance_rejected: The same of y_l [(B,); reward squared; as `variance_chosen`].
        statistics_chosen: Sums over the tokens of y_w of the KL controller's per-token statistics, by name, without
            gradient [(B,) each; the statistic's; names in `statistics` of the spec's controller].
        statistics_rejected: The same over y_l [(B,) each; the statistic's; as `statistics_chosen`].
    """

    policy_chosen: Tensor
    policy_rejected: Tensor
    len_chosen: Tensor
    len_rejected: Tensor
    anchors: Mapping[str, Anchor] = field(default_factory=dict)
    p_chosen: Tensor | None = None
    win_rate_chosen: Tensor | None = None
    win_rate_rejected: Tensor | None = None
    variance_chosen: Tensor | None = None
    variance_rejected: Tensor | None = None
    statistics_chosen: Mapping[str, Tensor] = field(default_factory=dict)
    statistics_rejected: Mapping[str, Tensor] = field(default_factory=dict)

    def log_ratios(self, anchor: str = "ref") -> tuple[Tensor, Tensor]:
        """h_w and h_l: log pi/pi_anchor of the chosen and of the rejected completions, (B,) each."""
        frozen = self.anchors[anchor]
        return self.policy_chosen - frozen.chosen, self.policy_rejected - frozen.rejected


@dataclass(frozen=True, kw_only=True)
class ExampleBatch:
    """What an unpaired loss sees.

    Args:
        policy: log pi(y|x), with gradient [(E,); nats; always].
        length: Length of y, EOS included [(E,); tokens; always].
        desirable: True where the completion is desirable [(E,); true or false; always].
        anchors: log pi_anchor(y|x), by the name the spec gives it, without gradient [(E,) each; nats; names in
            `anchors` of the class].
        policy_mismatched: log pi(y'|x) of another example's completion y', without gradient [(E,); nats; always in
            training].
        anchors_mismatched: log pi_anchor(y'|x), by name [(E,) each; nats; as `anchors`].
    """

    policy: Tensor
    length: Tensor
    desirable: Tensor
    anchors: Mapping[str, Tensor] = field(default_factory=dict)
    policy_mismatched: Tensor | None = None
    anchors_mismatched: Mapping[str, Tensor] = field(default_factory=dict)


LossBatch = PairBatch | ExampleBatch | RolloutBatch | ScoreBatch
"""What a loss and a KL controller may be given; a loss gets what its `rows` and `reads` say."""


def _identity(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a loss may know besides the batch.

    Args:
        beta: From the KL controller. With `beta_per_side`, (B, 2) for chosen and rejected; None where the spec says
            `kl: none` [a scalar, (B,), (E,) or (S,); reward per nat; `uses_beta`].
        mean_over_ranks: Averages a tensor over data-parallel ranks; the identity on one rank [a function; -; always].
        round: Round of the game, from 1; 1 in an offline method [a number; rounds; always].
        scale: How many of the method's steps this update takes at once (`Update.step_scale`) [a number; steps; always].
    """

    beta: Tensor | None = None
    mean_over_ranks: Callable[[Tensor], Tensor] = _identity
    round: int = 1
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """Result of a loss.

    Args:
        values: With gradient, in the dtype of the log-probs or scores. The objective is their mean over the rows of the
            optimiser step, or their sum divided by its tokens: see `Loss.mean_over` [(B,), (E,), (S,) or (L,); the
            loss's; required].
        reward_chosen: Implicit reward of the chosen (or desirable) completions, or the score of the best one, detached;
            for accuracy and margin [as `values`; reward; where rows are compared].
        reward_rejected: Implicit reward of the rejected (or undesirable) completions, or the score of the worst one,
            detached [as `values`; reward; where rows are compared].
        desirable: Whether each example is desirable: then both rewards have a value for each example, and only that of
            its own side counts. Absent: every value of the two counts [(E,); true or false; optional, of examples].
        metrics: Further values to log, detached, by name. What is logged is their mean over the rows, or tokens, of the
            logging interval [as `values`, (M,) or a scalar each; any; optional].
        scores: Of a loss that reads scores, what it read, detached; for evaluation [(N, K); reward; set for the loss].
    """

    values: Tensor
    reward_chosen: Tensor | None = None
    reward_rejected: Tensor | None = None
    desirable: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    scores: Tensor | None = None
