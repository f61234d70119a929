"""What a run asks of a Ray cluster, read from its command line and run files before Ray is asked for anything."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nashtune.errors import InputError
from nashtune.spec.findings import Collector
from nashtune.spec.run import Runs, load_runs, split_cli
from nashtune.spec.runoptions import about_ranks, put_options
from nashtune.spec.runranks import ranks_of
from nashtune.spec.settings import where_and_what
from nashtune.spec.types import Typed

STARTED = ("one", "ddp")
"""What processes started by Ray may share: nothing but gradients."""


@dataclass(frozen=True)
class Layout:
    """A rectangle of processes, as Lightning's Trainer has them.

    Args:
        machines: `trainer.num_nodes`, 1 or more.
        processes: `trainer.devices` of each machine, 1 or more.
        accelerator: `trainer.accelerator`; "auto" takes GPUs where the cluster has any.
    """

    machines: int
    processes: int
    accelerator: str

    def resources(self, *, cluster_has_gpus: bool) -> dict[str, float]:
        """What each machine has to give: a CPU for each process, and a GPU where it trains on one.

        Args:
            cluster_has_gpus: Whether any machine of the cluster has one.
        """
        asked = {"CPU": float(self.processes)}
        on_gpus = cluster_has_gpus if self.accelerator == "auto" else self.accelerator in ("gpu", "cuda")
        return {**asked, "GPU": float(self.processes)} if on_gpus else asked


def layout_of(argv: Sequence[str]) -> Layout:
    """The machines and processes that a training command asks for.

    The checkpoint that it may go on from is not read: `trainer.devices` and `trainer.strategy` are given anew.

    Args:
        argv: What follows the command's name; `precheck` has found nothing wrong with it.

    Raises:
        InputError: they are not said, or cannot be started by Ray.
    """
    line = split_cli(argv)
    runs = put_options(load_runs(line.configs), about_ranks(line.rest))
    trainer = {name: _plain(value) for name, value in runs.data.get("trainer", {}).items()}
    found = Collector()
    devices = str(trainer.get("devices", ""))
    if not re.fullmatch(r"[1-9]\d*", devices):
        found.add(_said(runs, "devices", _devices_problem(devices)))
    accelerator = trainer.get("accelerator") or "auto"
    if accelerator == "mps":
        found.add(_said(runs, "accelerator", "mps: Ray gives out CPUs and GPUs; leave it out, or say cpu or gpu"))
    if problem := _strategy_problem(trainer):
        found.add(_said(runs, "strategy", problem))
    found.close()
    return Layout(int(trainer.get("num_nodes") or 1), int(devices), str(accelerator))


def waited_for(machines: int, each: Mapping[str, float]) -> str:
    """What a run needs before it begins, in words.

    Args:
        machines: How many.
        each: What `Layout.resources` returned.
    """
    return f"{machines} machine{'s' * (machines > 1)} with {_amounts(each)}{' each' * (machines > 1)}"


def listed(nodes: Sequence[Mapping[str, float]], each: Mapping[str, float]) -> str:
    """What the machines of a cluster have of that, in words.

    Args:
        nodes: Resources of each machine.
        each: Names the resources.
    """
    return "; ".join(_amounts({name: node.get(name, 0) for name in each}) for node in nodes) or "no machine"


def _devices_problem(devices: str) -> str:
    how = "Ray must be told how many processes each machine runs: --trainer.devices 8"
    if re.fullmatch(r"-1|auto|", devices):
        return f"{devices}: {how}" if devices else how
    return f"{devices}: which GPUs they are is for Ray to say; {how}"


def _strategy_problem(trainer: Mapping[str, Any]) -> str | None:
    if "strategy" not in trainer:
        return "Ray starts runs of ddp alone, and a checkpoint may name another; say --trainer.strategy ddp"
    if ranks_of({**trainer, "devices": 1}).kind in STARTED:
        return None
    strategy = trainer["strategy"]
    name = strategy.get("class_path") if isinstance(strategy, Mapping) else strategy
    return f"{_plain(name)}: Ray starts runs of ddp alone; start this one by torchrun or SLURM (docs/many-gpus.md)"


def _said(runs: Runs, option: str, problem: str) -> str:
    dotted = f"trainer.{option}"
    where = runs.where("trainer", option)
    return f"{where_and_what(where, dotted) if where != dotted else f'--{dotted}'}: {problem}"


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Typed) else value


def refuse_inside(environ: Mapping[str, str]) -> None:
    """Refuse to start processes from a process that somebody has started with others.

    Args:
        environ: This process's environment.

    Raises:
        InputError: torchrun has.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        raise InputError(
            "nashtune ray: starts all processes itself, and this one was started with others by torchrun; give the "
            "command once, without torchrun"
        )


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}{'s' * (amount != 1)}" for name, amount in resources.items())
