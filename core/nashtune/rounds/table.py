"""What a game is played with: policy, sampler, oracle, pairing, prompts, and what is kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from nashtune.data.prompts import PromptRow
from nashtune.interfaces import LogProbEngine, Loss, Pairing, PreferenceOracle, RewardOracle, Sampler
from nashtune.interfaces.schedule import Anchor, Collect, Phase, Round, Snapshot, Update
from nashtune.journal.store import Journal
from nashtune.models.policy import HFPolicy
from nashtune.models.snapshots import SnapshotBank
from nashtune.ranks import together
from nashtune.rounds.ledger import Ledger
from nashtune.rounds.order import WindowOrder
from nashtune.rounds.progress import Progress
from nashtune.rounds.rows import RolloutRow


@dataclass(kw_only=True)
class Table:
    """One game's objects.

    Args:
        rounds: What the schedule declares.
        loss: The spec's.
        policy: Loaded, on its device.
        tokenizer: The policy's.
        engine: Log-prob engine.
        sampler: Attached.
        oracle: None where the sampler replays a journal with its judgements.
        pairing: None where the schedule trains on rollouts.
        prompts: All training prompts.
        prompts_per_round: None splits them evenly over the rounds.
        bank: Snapshots on disk.
        journal: What phases made, on disk.
        ledger: What the oracle has counted while it was asked, on disk.
        progress: Who shows it.
        seed: The run's.
        soft_labels: Whether the loss gets P(y_w > y_l) instead of a certain label.
        batch_size: Rows of a micro-batch.
        batch_tokens: Most positions of a forward pass, where the run says it.
        autocast: The precision context that training steps run under.
        judged_by_scores: Whether the schedule trains on rewards of single completions.
        prepare: Makes an update's rollouts ready for training, told the round and whether the update has begun; None
            where the loss computes everything itself.
        order: The micro-batches of an update with so many rows; None where rollouts are not measured.
        averages: Averaged weights by snapshot name, in memory; they travel in checkpoints.
    """

    rounds: Sequence[Round]
    loss: Loss
    policy: HFPolicy
    tokenizer: Any
    engine: LogProbEngine
    sampler: Sampler
    oracle: RewardOracle | PreferenceOracle | None
    pairing: Pairing | None
    prompts: Sequence[PromptRow]
    prompts_per_round: int | None
    bank: SnapshotBank
    journal: Journal
    ledger: Ledger
    progress: Progress
    seed: int
    soft_labels: bool
    batch_size: int
    batch_tokens: int | None
    autocast: Callable[[], AbstractContextManager[Any]]
    judged_by_scores: bool = False
    prepare: Callable[[Sequence[RolloutRow], int, bool], list[RolloutRow]] | None = None
    order: Callable[[int], WindowOrder] | None = None
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @cached_property
    def keeps_live_weights(self) -> bool:
        """Whether an update goes on with the live weights, so that no phase may lose them."""
        return any(phase.start is None for phase in self._updates())

    @cached_property
    def updates(self) -> int:
        """Updates of the whole run."""
        return len(self._updates())

    def _updates(self) -> list[Update]:
        return [phase for one in self.rounds for phase in one.phases if isinstance(phase, Update)]

    def load(self, name: str) -> None:
        """Set the live weights to a snapshot."""
        if name in self.averages:
            self.policy.load_trainable_state_dict(self.averages[name])
        else:
            self.bank.load(name, self.policy)

    @contextmanager
    def weights(self, name: str | None) -> Iterator[None]:
        """The policy's weights are a snapshot's inside; None leaves them as they are. Every rank enters.

        Inside, ranks may run the policy each for itself: where it is cut up over them, a plain copy stands in for it.
        """
        apart = self.policy.is_sharded
        with self.policy.inference_model():
            kept = None if name is None or apart or not self.keeps_live_weights else self._copy()
            if name is not None:
                with together(f"load {name}"):
                    self.load(name)
            try:
                yield
            finally:
                if kept is not None:
                    self.policy.load_trainable_state_dict(kept)

    def average(self, name: str, of: dict[str, float]) -> None:
        """Keep a weighted mean of weights under a name, on every rank.

        In float32: in bf16 a slow mean would not move.
        """
        total: dict[str, Tensor] = {}
        with self.policy.inference_model(or_cpu=True):
            live = self.policy.trainable_state_dict()
            for source, share in of.items():
                weights = live if source == "live" else self._state(source)
                for key, weight in weights.items():
                    part = weight.float().cpu() * share
                    total[key] = total[key] + part if key in total else part
        self.averages[name] = total

    def forget(self, round: int) -> None:
        """Drop the averages that no phase of this round or of a later one names."""
        self.averages = {name: kept for name, kept in self.averages.items() if self._last_use.get(name, 0) >= round}

    @cached_property
    def _last_use(self) -> dict[str, int]:
        """The last round that names a snapshot."""
        return {name: t for t, one in enumerate(self.rounds, start=1) for phase in one.phases for name in _names(phase)}

    def _state(self, name: str) -> dict[str, Tensor]:
        if name in self.averages:
            return self.averages[name]
        kept = self._copy()
        self.load(name)
        try:
            return self._copy()
        finally:
            self.policy.load_trainable_state_dict(kept)

    def _copy(self) -> dict[str, Tensor]:
        return {key: weight.cpu().clone() for key, weight in self.policy.trainable_state_dict().items()}


def _names(phase: Phase) -> tuple[str, ...]:
    """The snapshots that a phase reads."""
    match phase:
        case Collect(policy=str(name)):
            return (name,)
        case Anchor():
            return tuple(phase.previous)
        case Snapshot(average=average) if average is not None:
            return tuple(average)
        case Update(start=str(name)):
            return (name,)
    return ()
