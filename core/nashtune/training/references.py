"""A run's references: attached to the loaded policy, and shown every row before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from nashtune.interfaces.schedule import Anchor
from nashtune.models.reward_policy import RewardPolicy
from nashtune.references.anchored import AnchoredReference
from nashtune.references.live import LiveReference

if TYPE_CHECKING:
    from nashtune.data.module import PreferenceData
    from nashtune.interfaces import Schedule
    from nashtune.models.policy import HFPolicy
    from nashtune.training.objective import Objective


def attach_references(objective: Objective, policy: HFPolicy, schedule: Schedule) -> None:
    """Give the references the policy at its starting weights.

    Args:
        objective: Its references are attached; in a game with anchor phases some are replaced.
        policy: The loaded policy.
        schedule: The spec's.

    Raises:
        InputError: a reference cannot be built from this policy, or the engine cannot read its model.
    """
    references, engine = objective.references, objective.engine
    anchors = any(isinstance(phase, Anchor) for one in schedule.rounds() for phase in one.phases)
    if "sampler" in schedule.reads and anchors and objective.loss.rows != "rollouts":
        # one model in memory: anchor phases score the round's rows with the snapshot in the live policy. Rollouts
        # are few and new at each step: there, switching the adapter off is cheaper than loading weights
        for name, reference in references.items():
            if reference.snapshot is not None:
                references[name] = AnchoredReference(reference.snapshot)
    for reference in references.values():
        reference.attach(policy)
        if isinstance(reference, LiveReference) and (model := reference.own_model()) is not None:
            engine.check(model)


def show_every_row(
    objective: Objective,
    policy: HFPolicy,
    data: PreferenceData,
    splits: Sequence[str],
    context: Callable[[str], AbstractContextManager[Any]],
) -> None:
    """Let references keep their log-probs of every row, and a frozen trunk its features.

    Args:
        objective: With attached references.
        policy: The loaded policy.
        data: Its rows.
        splits: Which of them.
        context: How the rows of a split are looked at in the steps that follow.
    """
    if isinstance(policy, RewardPolicy) and policy.head.trunk == "frozen":
        for split in splits:
            with context(split):
                policy.remember(data.every_row(split))
    for reference in objective.references.values():
        for split in splits:
            with context(split):
                reference.prepare(data.every_row(split), objective.engine, data.fingerprint(split))
