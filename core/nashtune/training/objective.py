"""From a micro-batch of token ids to one loss value per row: policy, references, KL controller and loss in a line.

Legend: B = pairs, N = sequences, M = completion tokens, S = rollouts, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from nashtune.apply_loss import apply_loss
from nashtune.interfaces import (
    KLController,
    LogProbEngine,
    LogProbs,
    Loss,
    LossBatch,
    LossOutput,
    Reference,
    ScoreBatch,
    Step,
    TokenBatch,
)
from nashtune.kl.asked import asked_beta, asked_report
from nashtune.kl.estimators import policy_entropy, with_token_kl
from nashtune.logprobs import EngineName, get_engine
from nashtune.spec.resolve import build
from nashtune.training.batches import example_batch, known_sums, pair_batch, rollout_batch, score_batch

if TYPE_CHECKING:
    from torch import Tensor

    from nashtune.interfaces.batch import RowKind
    from nashtune.models.policy import HFPolicy
    from nashtune.models.reward_policy import RewardPolicy
    from nashtune.spec.model import Spec


class Objective:
    """What a spec minimises, on a policy.

    Args:
        spec: The resolved spec.
        policy: What is trained.
        engine: Log-prob engine.
        mean_over_ranks: Averages a tensor over data-parallel ranks.

    Attributes:
        loss: The spec's loss.
        kl: The spec's KL controller, if it has one.
        references: By name. A plain dict on purpose: a reference is no submodule, so it is in no checkpoint and in no
            optimiser.
        round: Round of the game, from 1.
        scale: Steps of the method that the update in progress takes at once.
    """

    def __init__(
        self, spec: Spec, policy: HFPolicy, engine: EngineName, mean_over_ranks: Callable[[Tensor], Tensor]
    ) -> None:
        self.loss = cast(Loss, build(spec.loss))
        self.kl = cast(KLController, build(spec.kl)) if spec.kl else None
        self.references = {name: cast(Reference, build(c)) for name, c in spec.references.items()}
        self.engine: LogProbEngine = get_engine(engine)
        self.round = 1
        self.scale = 1.0
        self._policy = policy
        self._mean_over_ranks = mean_over_ranks

    @property
    def reward_unit(self) -> str | None:
        """What the implicit rewards are measured in, where the loss and the controller tell."""
        if self.loss.reward_unit:
            return self.loss.reward_unit
        if self.loss.reads == "scores":
            return "score"
        return "β · nats" if self.loss.uses_beta and self.kl is not None else None

    def compares_rows(self, kind: RowKind) -> bool:
        """Whether what a row contributes depends on the rows beside it, so that a micro-batch is one pass.

        Of rollouts β is fixed before the update, over all of them.
        """
        return self.loss.compares_rows or (self.kl is not None and self.kl.compares_rows and kind != "rollouts")

    def evaluate(self, batch: TokenBatch, *, token_kl: bool = False) -> LossOutput:
        """Loss and metrics of a micro-batch under the current weights.

        Args:
            batch: Token ids.
            token_kl: Also measure the policy's entropy at every completion token over the whole vocabulary, and
                KL(pi || ref), where `ref` gives logits.
        """
        seen, statistics = self._look(batch, token_kl)
        beta = batch.beta if batch.beta is not None else asked_beta(self.kl, seen) if self.kl is not None else None
        step = Step(beta=beta, mean_over_ranks=self._mean_over_ranks, round=self.round, scale=self.scale)
        output = apply_loss(self.loss, seen, step)
        # where β was fixed before the update, so was what the controller reports of it
        reports = self.kl is not None and beta is not None and batch.beta is None
        extra = asked_report(self.kl, seen, beta) if reports else {}  # type: ignore[arg-type]
        if beta is not None:
            extra.setdefault("beta", beta)
        own = len(batch) if batch.kind == "examples" else None  # mismatched answers are not the policy's rows
        if "token_kl" in statistics:
            extra["kl_to_reference"] = statistics["token_kl"][:own]
        if "entropy" in statistics:
            extra["entropy"] = statistics["entropy"][:own]
        return LossOutput(
            values=output.values,
            reward_chosen=output.reward_chosen,
            reward_rejected=output.reward_rejected,
            desirable=output.desirable,
            metrics={**output.metrics, **{name: value.detach() for name, value in extra.items()}},
            scores=seen.scores.detach() if isinstance(seen, ScoreBatch) else None,
        )

    def _look(self, batch: TokenBatch, token_kl: bool) -> tuple[LossBatch, dict[str, Tensor]]:
        """What the loss sees, and sums of per-token statistics over each completion; of `entropy` the mean (N,)."""
        if self.loss.reads == "scores":
            return score_batch(batch, cast("RewardPolicy", self._policy).scores(batch, self.engine)), {}
        features = self._policy.forward(batch, self.engine)
        policy: LogProbs | None = None
        anchors: dict[str, LogProbs] = {}
        known_M = {name: batch.per_token[f"ref:{name}"] for name in self.references if f"ref:{name}" in batch.per_token}
        statistics: dict[str, Tensor] = {}
        wanted = self.kl.statistics if self.kl is not None else ()
        for name, reference in self.references.items():
            if name in known_M:  # measured once, before the update
                continue
            if name in batch.known:
                anchors[name] = known_sums(batch, name)
            elif name == "ref" and reference.gives_logits and (wanted or token_kl):
                fn = with_token_kl(self.kl.token_statistics if self.kl and wanted else None, token_kl)
                frozen = reference.forward(batch, self.engine)
                policy, anchors[name], statistics = self.engine.compared(features, frozen, batch, fn)
            else:
                anchors[name] = reference.logprobs(batch, self.engine)
        if policy is None and token_kl:  # no reference is at hand: the policy beside itself
            policy, _, statistics = self.engine.compared(features, features, batch, policy_entropy)
        elif policy is None:
            policy = self.engine.logprobs(features, batch)
        if "entropy" in statistics:
            statistics["entropy"] = statistics["entropy"] / policy.lengths.clamp_min(1)
        if batch.kind == "rollouts":
            frozen_M = {name: anchor.token_logp for name, anchor in anchors.items()} | known_M
            values = self._policy.values(features, batch, self.engine) if self.loss.uses_values else None
            return rollout_batch(batch, policy, frozen_M, values), statistics
        make = pair_batch if batch.kind == "pairs" else example_batch
        return make(batch, policy, anchors, statistics), statistics
