"""The plan of a run: what a game's spec, run file and prompts come to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nashtune.interfaces.schedule import Update
from nashtune.models.sizes import BYTES
from nashtune.plugins.static import class_info
from nashtune.spec.findings import Collector
from nashtune.spec.gamerules import attribute, chosen, scores
from nashtune.spec.games import Declared
from nashtune.spec.model import Spec
from nashtune.spec.optimizerrules import MOMENTS
from nashtune.spec.plan import Plan
from nashtune.spec.planning import Setup, make_plan
from nashtune.spec.run import Runs
from nashtune.spec.runranks import ranks_of
from nashtune.spec.settings import where_and_what

if TYPE_CHECKING:
    from nashtune.models.config import LoraSettings
    from nashtune.models.locate import ModelFolder


def lora_of(policy: Mapping[str, Any]) -> LoraSettings | None:
    """The settings of a fresh adapter, where the run has one."""
    if policy["lora"] is None:
        return None
    from nashtune.models.config import LoraSettings  # brings jsonargparse, a tenth of a check's time

    return LoraSettings(**policy["lora"])


def check_epochs(trainer: Mapping[str, Any], runs: Runs, found: Collector) -> None:
    """Note a `trainer.max_epochs` that gives a game's updates no end, or no beginning."""
    epochs = trainer.get("max_epochs")
    if epochs is not None and epochs < 1:
        where = where_and_what(runs.where("trainer", "max_epochs"), "trainer.max_epochs")
        found.add(f"{where}: {epochs}; in a game it is the passes over the rows of each update, 1 or more")


def plan_run(
    spec: Spec,
    declared: Declared,
    prompts: int,
    options: Mapping[str, Any],
    folder: ModelFolder | None,
    held_out: int = 0,
    keep: int = 1,
) -> Plan:
    """Count what a game's run will do; rows dropped for their length are not known here.

    Args:
        spec: A game.
        declared: What its schedule and pairing declare.
        prompts: Training prompts.
        options: The run's options by section, defaults filled in.
        folder: Of the policy, where its files are there already.
        held_out: Prompts to be answered when the game is over.
        keep: Checkpoints that stay.

    Raises:
        InputError: the prompts cannot be dealt out to the rounds.
    """
    from nashtune.models.sizes import trainable_bytes

    data, policy, trainer, sampler = options["data"], options["policy"], options["trainer"], spec.sampler
    assert sampler is not None, "the cross-check demands a sampler for a game"
    oracle = spec.oracle if chosen(spec.oracle) else None
    judged_by = None if oracle is None else "scores" if scores(class_info(oracle.target)) else "comparisons"
    snapshots = [attribute(reference, "snapshot", None) for reference in spec.references.values()]
    with_own = [reference for reference in spec.references.values() if attribute(reference, "snapshot", None) is None]
    return make_plan(
        declared.rounds,
        Setup(
            prompts=prompts,
            prompts_per_round=data["prompts_per_round"],
            completions=sampler.args.get("completions", 1),
            max_new_tokens=sampler.args.get("max_new_tokens"),
            draws=sampler.args.get("n", 1) if attribute(sampler, "selects", False) else 1,
            recorded=attribute(sampler, "replays", False),
            most=declared.most,
            one_step=declared.most is None and not attribute(spec.loss, "uses_old", False),
            judged_by=judged_by,
            anchored=tuple(snapshot for snapshot in snapshots if snapshot is not None),
            live_references=len(with_own),
            batch_size=data["batch_size"] * (ranks_of(trainer).processes or 1),
            accumulate=trainer.get("accumulate_grad_batches", 1),
            epochs=max(1, trainer.get("max_epochs") or 1),
            max_steps=trainer.get("max_steps", -1),
            snapshot_bytes=trainable_bytes(folder, policy["precision"], lora_of(policy))
            if folder is not None
            else None,
            held_out=held_out,
            keep=keep,
            moments=_moments(spec, policy, folder),
        ),
    )


def _moments(spec: Spec, policy: Mapping[str, Any], folder: ModelFolder | None) -> int:
    """What the optimiser keeps per trained weight, in numbers as large as the weight."""
    adapter = policy["lora"] is not None or (folder is not None and folder.is_adapter)
    return math.ceil(MOMENTS[spec.optimizer.name] / (BYTES["fp32"] if adapter else BYTES[policy["precision"]]))


def warmup_notes(spec: Spec, declared: Declared, plan: Plan) -> list[str]:
    """A note where the warm-up is longer than what trains between two restarts of the optimiser."""
    updates = [phase for one in declared.rounds for phase in one.phases if isinstance(phase, Update)]
    restarts: list[int] = []
    for update, steps in zip(updates, plan.steps_per_update, strict=True):
        if update.reset or not restarts:
            restarts.append(0)
        restarts[-1] += steps
    note = spec.optimizer.warmup_note(min(restarts))
    return [f"note: an update warms up like a run of its own: {note}"] if note else []
