"""The disk that `nashtune check` predicts of a run, and what is free where its folder will lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nashtune.errors import InputError
from nashtune.interfaces.schedule import Round
from nashtune.spec.gamerules import attribute
from nashtune.spec.members import ELSEWHERE
from nashtune.spec.model import Spec
from nashtune.spec.plan import Plan, size
from nashtune.spec.run import Runs
from nashtune.spec.runplan import lora_of
from nashtune.spec.runranks import ranks_of
from nashtune.spec.types import Typed

if TYPE_CHECKING:
    from nashtune.memory.disk import Disk
    from nashtune.models.config import LoraSettings
    from nashtune.models.locate import ModelFolder
PUSHING, PUSHED = "nashtune.samplers.vllm:VLLMSampler", "vllm"
"""The sampler that gives its engines a folder of weights before each draw, and where that lies in the run folder."""


def written(
    spec: Spec,
    rounds: Sequence[Round],
    folder: ModelFolder,
    options: Mapping[str, Any],
    runs: Runs,
    steps: float,
    plan: Plan | None,
) -> tuple[dict[str, Any] | None, list[str]]:
    """What the run writes, in bytes, and what to say of it; None where model or strategy do not say enough.

    Args:
        spec: Of the run.
        rounds: Of a game; empty of an offline run.
        folder: Of the policy.
        options: Of the run by section, defaults filled in.
        runs: The run files.
        steps: Optimiser steps of an offline run; infinite where they are not known.
        plan: Of a game.
    """
    from nashtune.memory.disk import free_space

    if ranks_of(options["trainer"]).kind in ("deepspeed", "other"):
        return None, ["disk: not predicted for this strategy"]
    keep, every = _plain(runs, "keep_checkpoints", 1), _plain(runs, "save_every", 50)
    critic = _critic(spec, folder)
    precision, lora = options["policy"]["precision"], lora_of(options["policy"])
    disk = None
    if critic is not None:
        disk = disk_of_run(
            spec, folder, rounds, steps, precision=precision, lora=lora, critic=critic, keep=keep, every=every
        )
    if disk is None:
        return None, ["disk: not predicted for this model or method"]
    where = Path(_plain(runs, "run_dir", None) or "runs")
    free = free_space(where)
    peak = max(disk.peak, (plan.disk_bytes or 0) + 2 * disk.pushed if plan is not None else 0)
    line = f"disk: {size(disk.checkpoint)} a checkpoint, {keep} kept"
    if plan is None:  # of a game it has said so already, with its journal
        line += f", up to {size(disk.while_saving)} while saving, {size(disk.at_the_end)} with the exported model"
    if disk.pushed:
        line += f", beside them {size(disk.pushed)} for the sampler's engine, twice while it is given new weights"
    notes = [f"{line}; free: {size(free)}"]
    if not (where / "checkpoints").is_dir():  # else the run owns part of it
        notes += _short(disk, peak, free)
    return {**disk.as_dict(), "peak": peak, "free": free}, notes


def disk_of_run(
    spec: Spec,
    folder: ModelFolder,
    rounds: Iterable[Round],
    steps: float,
    *,
    precision: str,
    lora: LoraSettings | None,
    critic: int,
    keep: int,
    every: int,
) -> Disk | None:
    """What a run of a spec writes: `check` and `fit` count the same.

    Args:
        spec: Of the run.
        folder: Of the policy.
        rounds: Of a game; empty of an offline run.
        steps: Optimiser steps; infinite where they are not known.
        precision: `policy.precision`.
        lora: `policy.lora`.
        critic: Parameters of the critic, see `critic_parameters`.
        keep: `keep_checkpoints`.
        every: `save_every`.

    Returns:
        As `disk_of`.

    Raises:
        InputError: config.json or a weight file cannot be read.
    """
    from nashtune.memory.disk import disk_of

    return disk_of(
        folder,
        precision=precision,
        lora=lora,
        optimizer=spec.optimizer.name,
        head=spec.head,
        critic=critic,
        rounds=rounds,
        pushes=spec.sampler is not None and spec.sampler.target == PUSHING,
        keep=keep,
        saves=math.ceil(steps / every) if steps < math.inf else None,
    )


def _short(disk: Disk, peak: int, free: int) -> list[str]:
    if free < disk.first:
        return ["note: the first checkpoint has no room where the run folder will lie: fit refuses; see run_dir"]
    if free < peak:
        return [f"note: the run needs {size(peak)} of disk at its peak, and less is free where its folder will lie"]
    return []


def _critic(spec: Spec, folder: ModelFolder) -> int | None:
    """Parameters of a critic; None where they are those of a model that is not there yet."""
    from nashtune.memory.disk import critic_parameters

    if not attribute(spec.loss, "uses_values", False):
        return 0
    oracle, init = spec.oracle, "reward_model"
    if init not in (attribute(spec.loss, "critic_init", "zero"), *spec.loss.args.values()):
        return critic_parameters("zero", folder, None)
    argument = attribute(oracle, "model_argument", None) if oracle is not None else None
    path = oracle.args.get(argument) if oracle is not None and argument is not None else None
    if not isinstance(path, str) or path.startswith(ELSEWHERE):
        return None
    try:
        return critic_parameters(init, folder, path)
    except InputError:  # fit and `check --build` look at the oracle's model, and say what is wrong with it
        return None


def _plain(runs: Runs, name: str, default: Any) -> Any:
    found = runs.data.get(name, default)
    return found.value if isinstance(found, Typed) else found
