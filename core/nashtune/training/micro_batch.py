"""A micro-batch on the host: in passes that fit into memory, as many on every rank that shares the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from nashtune.data.passes import counted, pass_tokens, split
from nashtune.models.member_order import member_share
from nashtune.models.reward_policy import RewardPolicy
from nashtune.sharding.tensors import same_for_all

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from nashtune.interfaces import TokenBatch
    from nashtune.models.policy import HFPolicy
    from nashtune.spec.model import Spec
    from nashtune.training.objective import Objective


class Passes:
    """Makes the passes of micro-batches.

    Args:
        spec: The resolved spec.
        policy: What is trained.
        objective: What is minimised.

    Attributes:
        own: Passes of the micro-batch at hand. Those behind them are its shortest one again, which counts nothing and
            keeps the ranks in step.
    """

    def __init__(self, spec: Spec, policy: HFPolicy, objective: Objective) -> None:
        self._head = spec.head
        self._policy = policy
        self._objective = objective
        self.own = 0

    def of(self, batch: TokenBatch, trainer: Trainer, asked: int | None, device: torch.device) -> list[TokenBatch]:
        """A micro-batch in passes, counted, with what references remember of them.

        Args:
            batch: Still on the host.
            trainer: The run's.
            asked: `data.batch_tokens`.
            device: Of the policy.
        """
        whole = trainer.predicting or self._objective.compares_rows(batch.kind)
        budget = None if whole else pass_tokens(asked, device, self._policy.model)
        if isinstance(self._policy, RewardPolicy):
            batch = replace(batch, trunk=self._policy.recall(batch))
        passes = [self._counted(one, trainer) for one in split(batch, self._objective.engine, budget)]
        # ranks that share weights run as many passes as the one with the most: the shortest again, counted as nothing
        self.own = len(passes)
        again = same_for_all(self._policy, len(passes)) - len(passes)
        return passes + [min(passes, key=lambda one: one.input_ids.numel())] * again

    def _counted(self, batch: TokenBatch, trainer: Trainer) -> TokenBatch:
        batch = counted(batch, self._objective.engine, self._objective.references)
        if self._head is None or not self._head.own_order or not trainer.training:
            return batch
        share = member_share(batch.rows, self._head.members, torch.initial_seed(), trainer.current_epoch)
        return replace(batch, share=share)


def to_device(passes: list[TokenBatch], device: torch.device) -> list[TokenBatch]:
    """The passes there, without waiting for the device: it fetches by itself what lies in pinned memory."""
    pinned = [one.pin_memory() for one in passes] if device.type == "cuda" else passes
    return [one.to(device, non_blocking=device.type != "cpu") for one in pinned]
